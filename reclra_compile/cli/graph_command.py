"""`reclra-compile graph MODEL`: the picture of a plan, in a file, the browser or the terminal."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from reclra_compile.cli.auto_options import auto_options
from reclra_compile.cli.errors import reports_errors
from reclra_compile.cli.options import (
    granularity_option,
    machine_options,
    meta_option,
    output_option,
    unreached_option,
)


@click.command(short_help="Draw MODEL's error pathways: in a file, the browser or the terminal.")
@click.argument("model")
@click.option("--wiring", "-w", default="depth2", show_default=True, metavar="FILE|NAME",
              help="wiring file, or the name of a shipped wiring (see `reclra-compile wirings`)")  # fmt: skip
@click.option("--beside", "-b", metavar="FILE|NAME",
              help="a second wiring, or plan, side by side with the first; in a page (.html)")  # fmt: skip
@click.option("--out", "-o", type=click.Path(dir_okay=False), metavar="FILE",
              help="write the picture: .html, .svg, .png, .dot or .mmd (Mermaid)  [default: draw in the terminal]")
@click.option("--ascii", "as_text", is_flag=True, help="draw waves and pathways in the terminal")
@click.option("--collapse/--nested", default=None,
              help="in the terminal: blocks as one line each, or with their regions  [default: by size]")
@click.option("--trace", type=click.Path(dir_okay=False), metavar="FILE",
              help="show when the tasks of a real step ran, as `train --trace FILE` recorded it; in a page")
@click.option("--simulate", is_flag=True, help="show when tasks are predicted to run; in a page")
@click.option("--open", "opened", is_flag=True, help="open the picture in the browser")
@granularity_option
@output_option
@meta_option
@unreached_option
@machine_options
@auto_options
@click.option("--json", "as_json", is_flag=True, help="print what was written as JSON")
@reports_errors
def graph(model: str, wiring: str, **options: Any) -> str | None:
    """Draw the plan of MODEL and a wiring, or a plan (a file that `--out` of compile wrote), without training.

    \b
    reclra-compile graph model.py -w depth1
    reclra-compile graph model.py -w depth1 --out errors.html --open
    reclra-compile graph model.py -w depth1 --beside backprop --out both.html
    reclra-compile graph model.py --devices h100:4 --microbatches 8 --simulate --out four.html
    reclra-compile graph net.plan --out net.mmd
    reclra-compile graph runs/depth2/seed0/plan.txt --trace step.json --out step.html

    Without --out the plan is drawn in the terminal; what a page shows better (--beside, --trace, --simulate, --open) is
    written to MODEL-WIRING.html, unless --ascii is given.

    Exit status: 0, or 2 for a mistake in the input.
    """
    from reclra_compile.cli.graph_view import carry_out

    given = click.get_current_context().get_parameter_source("wiring") is ParameterSource.COMMANDLINE
    return carry_out(model, wiring, given, options)
