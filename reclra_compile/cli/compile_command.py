"""`reclra-compile MODEL`: compile, report, and write plan and picture."""

from __future__ import annotations

import click

from reclra_compile.cli.errors import reports_errors


@click.command("compile")
@click.argument("model")
@click.option("--wiring", "-w", default="depth2", show_default=True, metavar="FILE|NAME",
              help="wiring file, or the name of a shipped wiring (see `reclra-compile wirings`)")  # fmt: skip
@click.option("--out", "-o", type=click.Path(dir_okay=False), metavar="PLAN", help="write the plan as text")
@click.option("--graph", "-g", type=click.Path(dir_okay=False), metavar="FILE",
              help="draw the error graph: .html, .svg, .png or .dot")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
@reports_errors
def compile_(model: str, wiring: str, out: str | None, graph: str | None, as_json: bool) -> None:
    """Compile MODEL with a wiring and report regions, pathways, waves and cost.

    \b
    reclra-compile model.py
    reclra-compile model.py --wiring depth1 --graph errors.html
    reclra-compile model.py:net -w my.yaml -o net.plan --json

    Exit status: 0, or 2 where the model or the wiring cannot be used.
    """
    from reclra_compile.cli.json_report import plan_json
    from reclra_compile.cli.report import note, print_plan
    from reclra_compile.compiler import plan_for
    from reclra_compile.files import write_text
    from reclra_compile.frontend.load_model import load_model
    from reclra_compile.view.draw import write_picture

    loaded = load_model(model)
    plan = plan_for(loaded.model, loaded.inputs, wiring)
    if out:
        write_text(out, str(plan))
    if graph:
        write_picture(plan, graph)
    if as_json:
        click.echo(plan_json(plan))
        return
    print_plan(plan)
    if out:
        note(f"plan written to {out}")
    if graph:
        note(f"picture written to {graph}")
