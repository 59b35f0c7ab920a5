"""`reclra-compile init MODEL`: a first wiring for a model, with comments, to be edited."""

from __future__ import annotations

from typing import Any

import click

from reclra_compile.cli.errors import reports_errors
from reclra_compile.cli.options import granularity_option, meta_option, output_option


@click.command("init", short_help="Write a wiring for MODEL to start from, with comments.")
@click.argument("model")
@click.option("--out", "-o", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE",
              help="the file to write, - for standard output  [default: MODEL's name with .yaml]")  # fmt: skip
@click.option("--force", is_flag=True, help="write over a file that is there already")
@click.option("--wiring", "-w", metavar="FILE|NAME", help="start from this wiring  [default: what suits MODEL]")
@click.option("--devices", metavar="N|KIND:N",
              help="for so many devices: the compiler chooses who hears whom, as with --auto")  # fmt: skip
@click.option("--microbatches", type=click.IntRange(min=1), metavar="M", help="parts that each batch is cut into")
@granularity_option
@output_option
@meta_option
@click.option("--json", "as_json", is_flag=True, help="print what was chosen, and why, as JSON")
@reports_errors
def init(model: str, **options: Any) -> str | None:
    """Write a wiring file for MODEL to start from: one that suits it, with its regions and each key explained.

    \b
    reclra-compile init model.py
    reclra-compile init model.py --out my.yaml --wiring depth1
    reclra-compile init model.py:net --devices h100:4 --microbatches 8
    reclra-compile init model.py --out - | less

    The wiring fits MODEL and trains as it is; the file ends in nothing that has to be filled in. Where it starts is
    the wiring that was measured to learn best on models like this one: by layers for plain networks, in groups of
    blocks for residual networks and transformers.

    Exit status: 0, or 2 for a mistake in the input, or where the file is there already (I001).
    """
    from reclra_compile.cli.init_view import run_init

    return run_init(model, options)
