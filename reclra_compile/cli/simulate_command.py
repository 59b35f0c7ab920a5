"""`reclra-compile simulate PLAN`: what a step of a plan takes, and what backprop's schedules take on the same costs."""

from __future__ import annotations

from typing import Any

import click

from reclra_compile.cli.errors import reports_errors
from reclra_compile.cli.options import machine_options


@click.command(short_help="Simulate a plan's step on its devices, beside backprop's schedules.")
@click.argument("plan", metavar="PLAN", type=click.Path())
@machine_options
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="samples in a step, in place of the plan's")
@click.option("--compare", "-c", metavar="NAME,…",
              help="schedules of backprop: gpipe, 1f1b, interleaved, zb_h1, zb_h2, zero_bubble (both), data_parallel, "
              "one_device, all")  # fmt: skip
@click.option("--trace", type=click.Path(dir_okay=False), metavar="FILE",
              help="write a trace for chrome://tracing or ui.perfetto.dev")  # fmt: skip
@click.option("--timeline", type=click.Path(dir_okay=False), metavar="FILE",
              help="draw the step, and the schedules compared with: .html, .svg or .png")  # fmt: skip
@click.option("--sweep", type=click.Path(dir_okay=False), metavar="FILE",
              help="draw how the model, in equal parts, would do on 1 to 1,024 devices, with other microbatches, links "
              "and batches: .html, .svg or .png, and the points in a .json beside it (takes minutes)")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
@reports_errors
def simulate(plan: str, **options: Any) -> str | None:
    """Simulate a step of PLAN (a file that `--out` wrote) and report times and memory of each device.

    \b
    reclra-compile model.py -w depth1 --devices 4 --microbatches 8 --out four.plan
    reclra-compile simulate four.plan
    reclra-compile simulate four.plan --compare all --timeline step.html
    reclra-compile simulate four.plan --devices h100:8 --microbatches 32 --compare 1f1b,zero_bubble
    reclra-compile simulate four.plan --trace trace.json
    reclra-compile simulate four.plan --sweep sweep.html

    Devices, microbatches, staleness and batch are the plan's where none are given; with others the regions are
    placed anew, without the model.

    Exit status: 0; 2 for a mistake in the input.
    """
    from reclra_compile.cli.simulate_view import carry_out

    return carry_out(plan, options)
