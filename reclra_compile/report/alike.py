"""Which runs are of one kind, so that a mean over them says something: they differ in their seeds alone. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from reclra_compile.report.runs import Run

UNKNOWN = "unknown"
SAID = 4  #: terms in a label at most; a table has them all


def alike(runs: Sequence[Run]) -> list[tuple[str, tuple[Run, ...]]]:
    """Runs of the same wiring, model, data and settings, in their order, each with a label.

    It is the wiring's name, and of several of a name also what tells them apart: "depth1 (lr 0.1)".
    """
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.wiring, json.dumps(_terms(run), sort_keys=True, default=str)), []).append(run)
    groups = [tuple(own) for own in found.values()]
    labels = [_label(own[0], [o[0] for o in groups if o[0].wiring == own[0].wiring]) for own in groups]
    labels = [f"{t} #{labels[:k].count(t) + 1}" if labels.count(t) > 1 else t for k, t in enumerate(labels)]
    return list(zip(labels, groups, strict=True))


def _label(run: Run, others: Sequence[Run]) -> str:
    """The wiring with those of the run's terms that are not the same in all `others` of its name."""
    own, terms = _terms(run), [_terms(r) for r in others]
    differ = [name for name in own if any(name in t and t[name] != own[name] for t in terms)]
    if "settings" in own and any("settings" not in t for t in terms):
        return f"{run.wiring} (settings unknown)"
    said = [f"{name} {_text(own[name])}" for name in differ if name not in ("pathways", "fingerprint")]
    if "model" not in differ and "fingerprint" in differ:  # the same name, another structure
        said.insert(0, f"model {own['fingerprint'][:8]}")
    if len(said) > SAID:
        said[SAID - 1 :] = [f"and {len(said) - SAID + 1} more"]
    return f"{run.wiring} ({', '.join(said)})" if said else run.wiring


def _terms(run: Run) -> dict[str, Any]:
    """What has to be the same, flat."""
    plan, data = run.plan, run.about.get("data") or {}
    terms: dict[str, Any] = {
        "model": plan.model if plan else run.about.get("model", UNKNOWN),
        "fingerprint": plan.fingerprint if plan else run.about.get("fingerprint", UNKNOWN),
    }
    if plan is not None:
        terms["pathways"] = [(p.source, p.target, p.kernel, p.update, p.init, p.scale) for p in plan.pathways]
    settings = {k.replace("_", " "): v for k, v in run.settings.items()}
    if not settings:
        return {**terms, "settings": UNKNOWN}
    if settings.get("schedule") == "constant" and not settings.get("warmup"):
        settings.pop("epochs", None)  # how many are to come changes none of those before
    return {
        **terms, **settings, "data": data.get("name"), "training samples": data.get("train"),
        "preprocess": data.get("preprocess"), "augment": data.get("augment"),
    }  # fmt: skip


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
