"""The runs below a folder, as `train --run-dir` has left them. Torch-free."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reclra_compile.errors import Fault, Location, PlanError, UserError
from reclra_compile.ir import Plan
from reclra_compile.report.about import wrong_in
from reclra_compile.train.jsonl import lines_of

#: what a run's folder has; each of them is enough to know it as one
FILES = ("run.json", "log.jsonl", "plan.txt", "checkpoint.pt", "checkpoint")
#: how far below a folder its runs are: DIR, DIR/<wiring>, DIR/<wiring>/seed<k>
DEPTH = 2


@dataclass(frozen=True)
class Run:
    """One run: its folder, what run.json says of it ({} where there is none), its plan and its epochs."""

    folder: Path
    wiring: str
    seed: int
    about: dict[str, Any]
    plan: Plan | None
    epochs: tuple[dict[str, Any], ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it ran with."""
        return dict(self.about.get("settings") or {})

    @property
    def unfinished(self) -> str:
        """How far it is, "" where it is done or nobody knows."""
        wanted, done = self.settings.get("epochs"), len(self.epochs)
        return f"{done} of {wanted} epochs" if isinstance(wanted, int) and done < wanted else ""


def read_runs(root: Path) -> tuple[Run, ...]:
    """The runs in and below a folder, those of the first command first.

    Raises UserError: Y002 where there is none, Y003 where none has finished an epoch, Y004 for a damaged file.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UserError(
            Fault("Y002", f"this folder of runs {what}", Location(str(root)),
                  "name what `train --run-dir DIR` was given")
        )
    folders = [f for f in _folders(root, DEPTH) if any((f / name).exists() for name in FILES)]
    if not folders:
        raise UserError(
            Fault("Y002", "there is no run in this folder", Location(str(root)),
                  "name what `train --run-dir DIR` was given, or a folder in it: runs are looked for two folders deep")
        )
    runs = [_read(folder) for folder in folders]
    if not any(run.epochs for run in runs):
        raise UserError(
            Fault("Y003", "no run in this folder has finished an epoch", Location(str(root)),
                  "wait for the first epoch, or go on with `train --run-dir … --resume`")
        )
    return tuple(sorted((r for r in runs if r.epochs), key=_order))


def _folders(root: Path, depth: int) -> list[Path]:
    """A folder and those in it, in their order; links are not followed out of it."""
    inside = sorted(p for p in root.iterdir() if p.is_dir() and not p.is_symlink()) if depth else []
    return [root, *(found for p in inside for found in _folders(p, depth - 1))]


def _order(run: Run) -> tuple[int, str, str, int]:
    """As the command had them, then by name and seed; those of an unknown command come last."""
    options = run.about.get("options") or {}
    compared = [Path(str(w)).stem for w in options.get("compare") or ()]
    place = compared.index(run.wiring) + 1 if run.wiring in compared else 0
    return place, str(run.folder.parent), run.wiring, run.seed


def _read(folder: Path) -> Run:
    about = _about(folder / "run.json")
    named = re.fullmatch(r"seed(\d+)", folder.resolve().name)
    plan = _plan(folder / "plan.txt")
    wiring = about.get("wiring") or (plan.name if plan else folder.resolve().parent.name)
    seed = about.get("seed")
    seed = seed if seed is not None else int(named[1]) if named else 0
    log = folder / "log.jsonl"
    epochs = [line for line in lines_of(log) if isinstance(line.get("epoch"), int)] if log.exists() else []
    return Run(folder, str(wiring), seed, about, plan, tuple(epochs))


def _about(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(file, str(error)) from error
    if not isinstance(found, dict) or found.get("format") != 1:
        raise _damaged(file, "it is none that this version reads")
    if wrong := wrong_in(found):
        raise _damaged(file, wrong)
    return found


def _plan(file: Path) -> Plan | None:
    if not file.exists():
        return None
    try:
        return Plan.parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(file, str(error).splitlines()[0]) from error
    except PlanError as error:
        fault = error.faults[0]
        line = f"line {fault.where.line}: " if fault.where and fault.where.line else ""
        raise _damaged(file, f"{line}{fault.message} ({fault.code})") from error


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(
        Fault("Y004", f"this file of a run cannot be read: {reason}", Location(str(file)),
              "put a copy of it back, or remove it: the rest of the run is shown without it")
    )  # fmt: skip
