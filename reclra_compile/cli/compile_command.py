"""`reclra-compile MODEL`: compile, report, and write plan and picture."""

from __future__ import annotations

from typing import Any

import click

from reclra_compile.cli.errors import Faults, reports_errors
from reclra_compile.cli.options import (
    granularity_option,
    machine_of,
    machine_options,
    meta_option,
    output_option,
    unreached_option,
)


@click.command("compile", short_help="Compile MODEL and report regions, pathways, waves and cost.")
@click.argument("model")
@click.option("--wiring", "-w", default="depth2", show_default=True, metavar="FILE|NAME",
              help="wiring file, or the name of a shipped wiring (see `reclra-compile wirings`)")  # fmt: skip
@granularity_option
@output_option
@meta_option
@unreached_option
@machine_options
@click.option("--out", "-o", type=click.Path(dir_okay=False), metavar="PLAN", help="write the plan as text")
@click.option("--graph", "-g", type=click.Path(dir_okay=False), metavar="FILE",
              help="draw the error graph: .html, .svg, .png or .dot")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
@reports_errors
def compile_(
    model: str, wiring: str, granularity: str | None, output: str | None, meta: bool, unreached: Any, out: str | None,
    graph: str | None, as_json: bool, **options: Any,
) -> str | None:  # fmt: skip
    """Compile MODEL with a wiring and report regions, pathways, waves and cost.

    \b
    reclra-compile model.py
    reclra-compile model.py --wiring depth1 --graph errors.html
    reclra-compile model.py:net -w my.yaml -o net.plan
    reclra-compile package.module:Net --json
    reclra-compile model.py -w depth1 --devices 4 --microbatches 8

    Exit status: 0, or 2 where the model or the wiring cannot be used.
    """
    from reclra_compile.machine import Machine
    from reclra_compile.spec.load import load_wiring

    faults = Faults()
    machine = Machine()
    with faults.collected():
        machine = machine_of(options)
    with faults.collected():
        load_wiring(wiring)

    from reclra_compile.cli.json_report import plan_json
    from reclra_compile.cli.report import note, print_plan
    from reclra_compile.compiler import plan_for
    from reclra_compile.files import write_text
    from reclra_compile.frontend.load_model import load_model
    from reclra_compile.view.draw import write_picture

    with faults.collected():
        loaded = load_model(model, meta=meta)
    faults.report()
    with loaded.blamed():
        plan = plan_for(
            loaded.model, loaded.inputs, wiring, granularity=granularity, output=output, unreached=unreached,
            machine=machine,
        )  # fmt: skip
    if out:
        with faults.collected():
            write_text(out, str(plan))
    if graph:
        with faults.collected():
            write_picture(plan, graph)
    faults.report()
    if as_json:
        return plan_json(plan)
    print_plan(plan)
    for what, file in (("plan", out), ("picture", graph)):
        if file:
            note(f"{what} written to {file}")
    return None
