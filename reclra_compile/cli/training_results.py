"""What training came to: the table of results, wirings beside each other, and the same as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from reclra_compile.cli.report import human
from reclra_compile.cli.tables import NAME, NUMBER, Cell, table
from reclra_compile.cli.train_setup import Setup
from reclra_compile.finite import finite
from reclra_compile.train.job import Result, mean_and_deviation
from reclra_compile.train.loop import Epoch


def time_text(seconds: float) -> str:
    """Seconds for people: 3.2 s, 12:30, 1:02:03."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def results_table(groups: dict[str, list[Result]], room: int, measure: str) -> Table:
    """The table of results, a row for each wiring."""
    top5 = all(r.history[-1].test_top5_error is not None for runs in groups.values() for r in runs)
    numbers = (f"test {measure}", *(("top-5",) if top5 else ()), f"train {measure}", "FLOPs ratio", "synapses", "time")
    columns = [("wiring", NAME), *((title, NUMBER) for title in numbers)]
    rows: list[list[Cell]] = []
    for label, runs in groups.items():
        last, plan = [r.history[-1] for r in runs], runs[0].plan
        rows.append([
            label, Text(mean_text([r.test_error for r in runs], measure), "bold"),
            *([mean_text([e.test_top5_error or 0.0 for e in last], measure)] if top5 else []),
            mean_text([e.train_error for e in last], measure),
            f"{plan.cost.ratio:.3f}", human(sum(p.synapses for p in plan.pathways)),
            time_text(mean_and_deviation(e.seconds for e in last)[0]),
        ])  # fmt: skip
    return table("results", columns, rows, None, room)


def by_label(results: list[Result]) -> dict[str, list[Result]]:
    """Results by wiring."""
    groups: dict[str, list[Result]] = {}
    for r in results:
        groups.setdefault(r.member.label, []).append(r)
    return groups


def comparison(groups: dict[str, list[Result]], measure: str) -> list[str]:
    """The first wiring's test error (or loss) beside that of each other one."""
    (label, first), *others = groups.items()
    ours = [r.test_error for r in first]
    lines = []
    for other, runs in others:
        theirs = [r.test_error for r in runs]
        difference = mean_and_deviation(ours)[0] - mean_and_deviation(theirs)[0]
        amount = f"{abs(difference):.2f} points" if measure == "error" else f"{abs(difference):.4g}"
        side = f"{amount} {'below' if difference < 0 else 'above'}"
        if abs(difference) < (0.005 if measure == "error" else 5e-5):
            side = "the same as"
        both = mean_text(ours, measure), mean_text(theirs, measure)
        lines.append(f"{label}: test {measure} {both[0]}, {side} {other}'s {both[1]}")
    return lines or [f"{label}: test {measure} {mean_text(ours, measure)}"]


def mean_text(values: list[float], measure: str) -> str:
    """Mean and deviation: errors in percent, losses as they are."""
    mean, deviation = mean_and_deviation(values)
    if measure == "error":
        return f"{mean:.2f} ± {deviation:.2f} %" if len(values) > 1 else f"{mean:.2f} %"
    return f"{mean:.4g} ± {deviation:.2g}" if len(values) > 1 else f"{mean:.4g}"


def results_json(setup: Setup, results: list[Result]) -> str:
    """{"version", "data", "results": [{wiring, seeds, test_error: {mean, std, each}, settings, history}]}."""
    rows: list[dict[str, Any]] = []
    for label, runs in by_label(results).items():
        errors = [r.test_error for r in runs]
        mean, deviation = mean_and_deviation(errors)
        rows.append(
            {
                "wiring": label,
                "seeds": [r.member.seed for r in runs],
                "test_error": {"mean": mean, "std": deviation, "each": errors},
                "test_top5_error": _top5(runs),
                "flops_ratio": runs[0].plan.cost.ratio,
                "settings": asdict(runs[0].settings),
                "warnings": [w.message for w in runs[0].plan.warnings],
                "warning_codes": [w.code for w in runs[0].plan.warnings],
                "history": [[_plain(e) for e in r.history] for r in runs],
            }
        )
    job = setup.job
    report = {"version": 1, "data": job.data.name, "preprocess": job.data.preprocess, "augment": job.augment,
              "measure": job.measure, "results": rows}  # fmt: skip
    return json.dumps(report, indent=2, ensure_ascii=False)


def _top5(runs: list[Result]) -> dict[str, Any] | None:
    """As `test_error`, or None where it was not measured."""
    found = [r.history[-1].test_top5_error for r in runs if r.history]
    errors = [e for e in found if e is not None]
    if not errors:
        return None
    mean, deviation = mean_and_deviation(errors)
    return {"mean": mean, "std": deviation, "each": errors}


def _plain(epoch: Epoch) -> dict[str, Any]:
    """A record without the numbers that JSON does not have."""
    known: dict[str, Any] = finite(epoch.as_json())
    return known
