"""`reclra-compile reproduce TABLE`: run a table of the paper and write ours beside the paper's."""

from __future__ import annotations

from typing import Any

import click

from reclra_compile.cli.errors import Interrupted, reports_errors


@click.command(short_help="Run a table of the paper, ours beside the paper's numbers.")
@click.argument("table", metavar="TABLE")
@click.option("--scale", type=click.Choice(["smoke", "hours", "paper"]), default="smoke", show_default=True,
              help="smoke: minutes, to see that it runs; hours: on a laptop; paper: as in the paper")  # fmt: skip
@click.option("--only", "-r", multiple=True, metavar="ROW", help="run this row only; may be repeated")
@click.option("--data", multiple=True, metavar="SET", help="run the rows on this data set only; may be repeated")
@click.option("--data-dir", metavar="DIR", help="where the data sets' files are  [default: $RECLRA_DATA]")
@click.option("--seeds", type=click.IntRange(min=1), metavar="K", help="runs of each row  [default: 1, 3, 10 by scale]")
@click.option("--jobs", "-j", type=click.IntRange(min=1), default=1, show_default=True, metavar="K",
              help="runs at the same time, each in a process of its own")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="CPU threads of each run")  # fmt: skip
@click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, mps  [default: cpu]")
@click.option("--run-dir", type=click.Path(file_okay=False), metavar="DIR",
              help="where results are kept  [default: runs/reproduce/TABLE-SCALE]")  # fmt: skip
@click.option("--resume", is_flag=True, help="keep the finished runs in --run-dir, and go on with the others")
@click.option("--tflops", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, metavar="X",
              help="what a GPU sustains, for the expected hours of table3")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="print the runs that would be made, with their settings")
@click.option("--json", "as_json", is_flag=True, help="print the table as JSON")
@reports_errors
def reproduce(**options: Any) -> str | None:
    """Run the rows of TABLE and write a table with ours beside the paper's numbers.

    TABLE is table1, table2a, table2b, table3, figure2, or a table file of your own (.yaml).

    \b
    reclra-compile reproduce table1 --data-dir FOLDER --jobs 2
    reclra-compile reproduce table1 --scale hours --jobs 2 --resume
    reclra-compile reproduce table1 --scale hours --only "rLRA, tanh" --data mnist
    reclra-compile reproduce figure2 --scale hours --run-dir runs/figure2
    reclra-compile reproduce table3 --scale paper --data-dir IMAGENET

    A row's test images are looked at once, after its last epoch. A row that cannot be run is reported
    in the table, and the others go on. Each finished run is kept; the table is written anew after each.

    Exit status: 0; 2 for a mistake in the input, or, without --json, where a row has no result; 130 after Ctrl-C.
    """
    from reclra_compile.cli.reproduce_view import carry_out

    try:
        return carry_out(options)
    except KeyboardInterrupt as stop:
        raise Interrupted("finished runs, and the last epoch of the others, are kept; --resume goes on") from stop
