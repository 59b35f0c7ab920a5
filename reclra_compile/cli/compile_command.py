"""`reclra-compile MODEL`: compile, report, and write plan and picture."""

from __future__ import annotations

import json
from typing import Any

import click
from click.core import ParameterSource

from reclra_compile.cli.auto_options import auto_options, auto_wiring
from reclra_compile.cli.errors import Faults, reports_errors
from reclra_compile.cli.options import (
    granularity_option,
    machine_of,
    machine_options,
    meta_option,
    output_option,
    unreached_option,
)
from reclra_compile.cli.sections import Sectioned


@click.command("compile", cls=Sectioned, short_help="Compile MODEL and report regions, pathways, waves and cost.")
@click.argument("model")
@click.option("--wiring", "-w", default="depth2", show_default=True, metavar="FILE|NAME",
              help="wiring file, or the name of a shipped wiring (see `reclra-compile wirings`)")  # fmt: skip
@granularity_option
@output_option
@meta_option
@unreached_option
@machine_options
@auto_options
@click.option("--write-wiring", type=click.Path(dir_okay=False), metavar="FILE",
              help="auto: write the chosen wiring as a YAML file")  # fmt: skip
@click.option("--runs", type=click.Path(exists=True, file_okay=False), metavar="DIR",
              help="auto: report the test errors of the training runs in this folder")  # fmt: skip
@click.option("--out", "-o", type=click.Path(dir_okay=False), metavar="PLAN", help="write the plan as text")
@click.option("--graph", "-g", type=click.Path(dir_okay=False), metavar="FILE",
              help="draw the error graph: .html, .svg, .png, .dot or .mmd (Mermaid)")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
@reports_errors
def compile_(
    model: str, wiring: str, granularity: str | None, output: str | None, meta: bool, unreached: Any,
    write_wiring: str | None, runs: str | None, out: str | None, graph: str | None, as_json: bool, **options: Any,
) -> str | None:  # fmt: skip
    """Compile MODEL with a wiring and report regions, pathways, waves and cost.

    \b
    reclra-compile model.py
    reclra-compile model.py --wiring depth1 --graph errors.html
    reclra-compile model.py:net -w my.yaml -o net.plan
    reclra-compile package.module:Net --json
    reclra-compile model.py -w depth1 --devices 4 --microbatches 8
    reclra-compile model.py --auto --devices 4 --write-wiring my.yaml

    Exit status: 0, or 2 where the model or the wiring cannot be used.
    """
    from reclra_compile.machine import Machine
    from reclra_compile.spec.load import load_wiring

    faults = Faults()
    machine = Machine()
    with faults.collected():
        machine = machine_of(options)
    source: Any = wiring
    given = click.get_current_context().get_parameter_source("wiring") is ParameterSource.COMMANDLINE

    from reclra_compile.auto.settings import asked_of
    from reclra_compile.cli.auto_report import auto_dict, print_auto
    from reclra_compile.cli.json_report import plan_dict, plan_json
    from reclra_compile.cli.report import note, print_plan
    from reclra_compile.compiler import plan_for
    from reclra_compile.files import write_text
    from reclra_compile.frontend.load_model import load_model
    from reclra_compile.view.draw import write_picture

    of_model = Faults()
    with of_model.collected():  # before the wiring: the file may register rules that it names
        loaded = load_model(model, meta=meta)
    with faults.collected():
        source = auto_wiring(options, wiring, given)
        source = load_wiring(source)
    faults.found += of_model.found
    faults.report()
    chosen = None
    if asked_of(source):
        from reclra_compile.auto.runs import runs_in
        from reclra_compile.cli.auto_plans import planned

        with loaded.blamed():
            chosen = planned(loaded.model, loaded.inputs, source, granularity, output, unreached, machine,
                             runs_in(runs) if runs else ())  # fmt: skip
        plan = chosen.plan
    else:
        with loaded.blamed():
            plan = plan_for(
                loaded.model, loaded.inputs, wiring, granularity=granularity, output=output, unreached=unreached,
                machine=machine,
            )  # fmt: skip
    if write_wiring and chosen is None:
        raise click.UsageError("--write-wiring writes a chosen wiring: say --auto")
    if write_wiring and chosen is not None:
        with faults.collected():
            write_text(write_wiring, chosen.text)
    if out:
        with faults.collected():
            write_text(out, str(plan))
    if graph:
        with faults.collected():
            write_picture(plan, graph)
    faults.report()
    if as_json:
        return plan_json(plan) if chosen is None else json.dumps(
            {**plan_dict(plan), "auto": auto_dict(chosen.report)}, indent=2, ensure_ascii=False
        )
    print_plan(plan)
    if chosen is not None:
        print_auto(chosen.report)
    for what, file in (("wiring", write_wiring), ("plan", out), ("picture", graph)):
        if file:
            note(f"{what} written to {file}")
    return None
