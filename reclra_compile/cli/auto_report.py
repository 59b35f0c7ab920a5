"""The report of a chosen wiring: the relays with their reasons, and what else there was."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from reclra_compile.auto.report import Report, amount, byte_text
from reclra_compile.cli.report import print_report, room_of, widen
from reclra_compile.cli.tables import NAME, NUMBER, TEXT, Row, table


def print_auto(report: Report) -> None:
    """The tables of relays and alternatives."""
    print_report(lambda out: _print(out, report))


def auto_dict(report: Report) -> dict[str, Any]:
    """The same as plain data."""
    return asdict(report)


def _print(out: Console, report: Report) -> None:
    room = room_of(out)
    relays: list[Row] = [
        (r.name, str(r.neurons), r.hears, str(len(r.heard_by)), str(r.wave), r.reason) for r in report.relays
    ]
    columns = (("relay", NAME), ("neurons", NUMBER), ("hears", NAME), ("heard by", NUMBER), ("wave", NUMBER),
               ("reason", TEXT))  # fmt: skip
    made = [table(f"{len(relays)} relay{'s' * (len(relays) > 1)}", columns, relays, None, room)] if relays else []
    for t in made:
        t.columns[-1].no_wrap = False
    errors = any(a.error is not None for a in report.alternatives)
    columns = (("wiring", TEXT), ("waves", NUMBER), ("error phase", NUMBER), ("step", NUMBER), ("synapses", NUMBER),
               *((("test error", NUMBER),) if errors else ()), ("", TEXT))  # fmt: skip
    rows: list[Row] = []
    for a in report.alternatives:
        style = "bold" if a.chosen else ""
        cells = [
            a.label, str(a.waves), "" if a.error_us is None else amount(a.error_us, report.unit),
            "" if a.step_us is None else amount(a.step_us, report.unit), byte_text(a.synapse_bytes),
        ]  # fmt: skip
        if errors:
            cells.append("" if a.error is None else f"{a.error:.2f} %" + (f" ({a.runs} runs)" if a.runs > 1 else ""))
        cells.append("chosen" if a.chosen else a.note)
        rows.append([Text(c, style) for c in cells])
    made.append(table(f"for {report.devices} device{'s' * (report.devices > 1)}", columns, rows, None, room))
    widen(out, made[-1])
    for t in made:
        out.print()
        out.print(t)
    out.print(f"auto: {report.reason}", soft_wrap=True, markup=False)
    for note in report.notes:
        out.print(f"note: {note}", soft_wrap=True, markup=False)
