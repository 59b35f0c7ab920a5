"""A table whose rows are only planned: predicted cost on the terminal, commands in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reclra_compile.cli.report import console, note
from reclra_compile.cli.tables import NUMBER, TEXT, table
from reclra_compile.errors import Fault, UserError
from reclra_compile.files import make_folder, write_text
from reclra_compile.reproduce.plans import TITLES, cells, page, planned, script
from reclra_compile.reproduce.schema import Row
from reclra_compile.reproduce.tables import Table


def plan_rows(spec: Table, rows: list[Row], folder: Path, options: dict[str, Any]) -> str | None:
    """Compile the rows, print and write their cost, and at scale `paper` their commands. Raises UserError (R005)."""
    tflops, data_dir, name = options["tflops"], options["data_dir"], spec.spec.table
    plans = planned(spec, rows)
    make_folder(folder)
    scripts = []
    if options["scale"] == "paper":
        scripts = [folder / f"{name}.sh"]
        write_text(scripts[0], script(spec, plans, data_dir, tflops, str(folder / "runs")))
    files = [folder / f"{name}.md", folder / f"{name}.json"]
    report = {"version": 1, "table": name, "tflops": tflops, "rows": [p.as_json(tflops) for p in plans]}
    text = json.dumps(report, indent=2, ensure_ascii=False)
    write_text(files[0], page(spec, plans, tflops, scripts, data_dir))
    write_text(files[1], text + "\n")
    if options["as_json"]:
        return text
    kinds = [TEXT, *[NUMBER] * (len(TITLES) - 1)]
    rows_shown = [cells(p, tflops) for p in plans]
    console().print(table(spec.spec.title, list(zip(TITLES, kinds, strict=True)), rows_shown, None, None),
                    soft_wrap=True)  # fmt: skip
    note(f"\nnothing is trained; hours are on one GPU at {tflops:g} TFLOP/s")
    for file in [*files, *scripts]:
        note(f"written: {file}")
    faults = [Fault("R005", f"{p.row.row} cannot be compiled: {p.problem}") for p in plans if p.problem]
    if faults:
        raise UserError(faults)
    return None
