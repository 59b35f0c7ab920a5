"""`reclra-compile search TABLE`: find a row's settings on held-out images, and keep every trial."""

from __future__ import annotations

from typing import Any

import click

from reclra_compile.cli.errors import Interrupted, reports_errors


@click.command(short_help="Search a row's settings on held-out images.")
@click.argument("table", metavar="TABLE")
@click.option("--row", "-r", required=True, metavar="ROW", help="the row's name, as in the table")
@click.option("--data", required=True, metavar="SET", help="its data set")
@click.option("--grid", "-g", multiple=True, metavar="KEY=A,B",
              help="values to try: a training setting, wiring, granularity, or a part of the wiring such as "
              "target.beta; A..B is a range for --random; may be repeated")  # fmt: skip
@click.option("--random", "draws", type=click.IntRange(min=1), metavar="N", help="try N random points of the grid")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="seed of the random points")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, metavar="K", help="runs of a point")
@click.option("--scale", type=click.Choice(["smoke", "hours", "paper"]), default="hours", show_default=True,
              help="the scale whose epochs and images are used")  # fmt: skip
@click.option("--images", type=click.IntRange(min=1), metavar="N",
              help="use N training images, for quick trials  [default: as many as the scale]")  # fmt: skip
@click.option("--data-dir", metavar="DIR", help="where the data sets' files are  [default: $RECLRA_DATA]")
@click.option("--jobs", "-j", type=click.IntRange(min=1), default=1, show_default=True, metavar="K",
              help="trials at the same time")  # fmt: skip
@click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, mps  [default: cpu]")
@click.option("--trials", type=click.Path(dir_okay=False), metavar="FILE",
              help="where trials are kept  [default: trials/TABLE.jsonl beside the table file]")  # fmt: skip
@click.option("--write", is_flag=True, help="write the best settings into the table file")
@click.option("--json", "as_json", is_flag=True, help="print the ranking as JSON")
@reports_errors
def search(**options: Any) -> str | None:
    """Try settings of a row of TABLE and rank them by the error on the held-out images.

    \b
    reclra-compile search table1 --row BP --data mnist --grid lr=1e-3,2e-3
    reclra-compile search table1 --row "rLRA, tanh" --data mnist --jobs 2 \\
        --grid lr=1e-3..1e-2 --grid readout_rate=1,3 --random 8 --write
    reclra-compile search table1 --row TP --data mnist --grid target.beta=0.1,0.5

    The test images are never read. Every trial is added to --trials, and a trial that is there is not
    run again, so that an interrupted search goes on with the same command. The ranking holds all kept
    trials of the row at this scale and on as many images, with their settings of then.

    Exit status: 0; 2 for a mistake in the input; 130 after Ctrl-C.
    """
    from reclra_compile.cli.search_view import carry_out

    try:
        return carry_out(options)
    except KeyboardInterrupt as stop:
        raise Interrupted("finished trials are kept; the same command goes on") from stop
