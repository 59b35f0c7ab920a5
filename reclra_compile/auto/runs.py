"""Errors of finished training runs, found by the plans that lie in their folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reclra_compile.errors import PlanError
from reclra_compile.ir import Plan

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A training run: what identifies its plan, and its last test error in percent."""

    key: Key
    error: float


def key_of(plan: Plan) -> Key:
    """What two plans have in common whose runs can be compared: the model's regions, and who hears whom how."""
    heard = sorted((p.source, p.target, p.kernel, p.rank, p.grid, p.update) for p in plan.pathways)
    return plan.fingerprint, tuple(heard), tuple(sorted((t.region, t.rule) for t in plan.targets))


def runs_in(folder: str | os.PathLike[str]) -> tuple[Run, ...]:
    """The runs below `folder` that have a test error; what is no run is left alone."""
    return tuple(_runs(sorted(Path(folder).rglob("plan.txt"))))


def error_of(plan: Plan, runs: Iterable[Run]) -> tuple[float | None, int]:
    """The mean error of the runs of `plan`, and their number."""
    errors = [r.error for r in runs if r.key == key_of(plan)]
    return (sum(errors) / len(errors), len(errors)) if errors else (None, 0)


def _runs(files: Iterable[Path]) -> Iterator[Run]:
    for file in files:
        try:
            last = json.loads((file.parent / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
            plan = Plan.parse(file.read_text(encoding="utf-8"), str(file))
            error = last["test_error"]
        except (OSError, ValueError, KeyError, IndexError, TypeError, PlanError):
            continue
        if isinstance(error, int | float):
            yield Run(key_of(plan), float(error))
