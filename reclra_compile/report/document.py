"""A report as plain data: what `reclra-compile report --json` prints. Torch-free."""

from __future__ import annotations

from typing import Any

from reclra_compile.finite import finite
from reclra_compile.report.command import commands_of
from reclra_compile.report.summary import Group, Report, Series


def as_json(report: Report) -> dict[str, Any]:
    """{"version", "model", "measure", "wirings", "commands", "environments", "notes"}; docs/cli.md has all keys."""
    data: dict[str, Any] = finite({
        "version": 1, "model": report.model, "measure": report.measure,
        "data": next((r.about["data"] for r in report.runs if r.about.get("data")), None),
        "wirings": [_group(group) for group in report.groups],
        "commands": commands_of(report.runs), "environments": environments_of(report), "aligned_on": report.aligned,
        "notes": list(report.notes),
    })  # fmt: skip
    return data


def environments_of(report: Report) -> list[dict[str, Any]]:
    """What runs ran on, each once, also after they were resumed."""
    found: list[dict[str, Any]] = []
    for run in report.runs:
        for each in (run.about, *(run.about.get("resumed") or ())):
            known = each.get("environment")
            if known and known not in found:
                found.append(known)
    return found


def _group(group: Group) -> dict[str, Any]:
    heat, plan = group.heat, group.plan
    return {
        "wiring": group.wiring, "label": group.label, "seeds": [r.seed for r in group.runs],
        "epochs": [len(r.epochs) for r in group.runs],
        "settings": group.runs[0].settings, "seconds": group.seconds,
        "fingerprint": plan.fingerprint if plan else None, "flops_ratio": plan.cost.ratio if plan else None,
        "curves": {name: _series(s) for name, s in group.series.items()},
        "discrepancy": None if heat is None else {
            "regions": list(heat.regions), "epochs": list(heat.epochs), "values": [list(row) for row in heat.values]
        },
        "alignment": [{"region": a.region, "start": list(a.start), "end": list(a.end)} for a in group.angles] or None,
    }  # fmt: skip


def _series(s: Series) -> dict[str, Any]:
    return {"epochs": list(s.epochs), "mean": list(s.mean), "std": list(s.deviation), "count": list(s.count),
            "each": [list(e) for e in s.each]}  # fmt: skip
