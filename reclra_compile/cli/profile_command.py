"""`reclra-compile profile MODEL`: time the tasks of a model on this machine, and keep the times for `compile`."""

from __future__ import annotations

from typing import Any

import click

from reclra_compile.cli.errors import reports_errors
from reclra_compile.cli.options import granularity_option, output_option, unreached_option
from reclra_compile.cli.sections import Sectioned


@click.command(cls=Sectioned, short_help="Time MODEL's regions here, for --device-profile measured.")
@click.argument("model")
@click.option("--wiring", "-w", default="depth2", show_default=True, metavar="FILE|NAME",
              help="wiring file or shipped name")  # fmt: skip
@granularity_option
@output_option
@unreached_option
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N",
              help="samples of the largest batch that is timed  [default: those of example_inputs]")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, metavar="N",
              help="times that everything is timed; medians count")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads  [default: torch's]")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1 or mps")
@click.option("--out", "-o", type=click.Path(dir_okay=False), metavar="FILE", help="write the times to a file too")
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
@reports_errors
def profile(**options: Any) -> str | None:
    """Run steps of MODEL with a wiring, and report what each region takes and what this machine can do.

    \b
    reclra-compile profile model.py -w depth1
    reclra-compile model.py -w depth1 --devices 4 --microbatches 8 --device-profile measured
    reclra-compile profile model.py -w depth1 --threads 1 --rounds 20 --out here.json
    reclra-compile other.py --devices 4 --device-profile here.json

    The times are kept in the user's cache folder, by model, wiring and machine, for --device-profile measured. With
    a file, other models are predicted from the rates that were fitted. No weights are changed and nothing is trained.

    Exit status: 0; 2 for a mistake in the input; 130 after Ctrl-C.
    """
    from reclra_compile.cli.profile_view import carry_out

    return carry_out(options)
