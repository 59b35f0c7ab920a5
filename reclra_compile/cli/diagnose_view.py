"""A diagnosis as people see it: the course of training, a row per region, warnings; and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reclra_compile.cli.report import hint, print_report, room_of, widen
from reclra_compile.cli.tables import GAP, NAME, NUMBER, SHORTEST, table
from reclra_compile.diagnose.facts import Diagnosis, Finding
from reclra_compile.diagnose.words import COLUMNS, grouped, percent, row, short
from reclra_compile.finite import finite

#: columns that a narrow screen goes without, the first first; --json and --out have them all
DISPENSABLE = ("growth", "error/z", "aim", "saturated", "D(Θ)")


def print_diagnosis(d: Diagnosis, found: Sequence[Finding]) -> None:
    """The report on standard output."""

    def draw(out: Console) -> None:
        course, regions = _course(d), regions_table(d, room_of(out))
        widen(out, course, regions)
        s = d.settings
        out.print(Text.assemble((d.plan.model, "bold"), " × ", (d.plan.name, "bold")))
        out.print(
            f"{d.data}: {s.optimizer}, lr {s.lr:g}, batch {s.batch_size}; measured on {d.samples} training samples",
            soft_wrap=True, markup=False,
        )  # fmt: skip
        for made in (course, regions):
            out.print()
            out.print(made)
        out.print()
        for g in grouped(found):
            out.print(Text.assemble((f"warning[{g.code}] ", "bold yellow"), g.where, g.message), soft_wrap=True)
            out.print(Text.assemble(("  try: ", "green"), g.suggestion), soft_wrap=True)
        hint(out, [g.code for g in grouped(found)])
        if not found:
            out.print("no warnings", soft_wrap=True)

    print_report(draw)


def _course(d: Diagnosis) -> Table:
    """A row per probe: how training goes as a whole."""
    output = d.plan.waves[0][0]
    rows = []
    for p in d.probes:
        angles = sorted(r.angle for r in p.regions if r.angle is not None and r.name != output)
        dead = [r.dead for r in p.regions if r.dead is not None and r.name != output]
        middle = f"{angles[len(angles) // 2]:.1f}°" if angles else short(None)
        rows.append((str(p.step), f"{p.loss:.4g}", short(p.lr), short(p.discrepancy), middle,
                     percent(max(dead) if dead else None)))  # fmt: skip
    titles = ("step", "loss", "lr", "D(Θ)", "median angle", "most dead")
    return table("course", [(title, NUMBER) for title in titles], rows, None, None)


def regions_table(d: Diagnosis, room: int | None) -> Table:
    """A row per region at the last probe, of as many columns as fit `room` characters (None: all)."""
    columns = [(title, NUMBER if numeric else NAME) for title, numeric in COLUMNS]
    rows = [list(row(r)) for r in d.last.regions]
    for title in DISPENSABLE:
        if room is None or _width(columns, rows) <= room:
            break
        k = [name for name, _ in columns].index(title)
        del columns[k]
        for cells in rows:
            del cells[k]
    return table(f"regions after step {d.last.step}", columns, rows, None, room)


def _width(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> int:
    """Characters that the table takes, with names that may break."""
    wide = (max(len(title), *(len(r[k]) for r in rows)) for k, (title, _) in enumerate(columns) if k)
    return SHORTEST + sum(GAP + w for w in wide)


def diagnosis_json(d: Diagnosis, found: Sequence[Finding]) -> str:
    """{"version", "wiring", "model", …, "steps": [a probe each], "regions": [the last probe's], "warnings"}."""
    steps = [
        {"step": p.step, "loss": p.loss, "lr": p.lr, "discrepancy": p.discrepancy,
         "regions": [r.as_json() for r in p.regions]}
        for p in d.probes
    ]  # fmt: skip
    report = {
        "version": 1, "wiring": d.plan.name, "model": d.plan.model, "data": d.data, "samples": d.samples,
        "settings": asdict(d.settings), "stopped": d.stopped or None, "steps": steps,
        "regions": steps[-1]["regions"], "warnings": [asdict(f) for f in found],
    }  # fmt: skip
    return json.dumps(finite(report), indent=2, ensure_ascii=False)
