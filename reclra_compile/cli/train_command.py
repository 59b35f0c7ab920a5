"""`reclra-compile train MODEL`: train with a wiring, beside others from the same seed and budget."""

from __future__ import annotations

from typing import Any

import click

from reclra_compile.cli.auto_options import auto_options
from reclra_compile.cli.errors import Interrupted, reports_errors, status_of
from reclra_compile.cli.options import granularity_option, machine_options, output_option, unreached_option
from reclra_compile.cli.sections import Sectioned
from reclra_compile.cli.train_options import data_options, rank_timeout_option, run_options, settings_options


@click.command(cls=Sectioned, short_help="Train MODEL with a wiring and print its test error.")
@click.argument("model")
@click.option("--wiring", "-w", metavar="FILE|NAME", help="wiring file or shipped name  [default: depth2]")
@click.option("--plan", metavar="PLAN", help="run a plan file instead of a wiring; it is checked against MODEL")
@click.option("--compare", "-c", multiple=True, metavar="FILE|NAME",
              help="also train this wiring from the same weights, with the same data order, batch size and epochs; "
              "may be repeated")  # fmt: skip
@data_options
@granularity_option
@output_option
@unreached_option
@machine_options
@auto_options
@click.option("--replicas", type=click.IntRange(min=1), default=1, metavar="R",
              help="copies of all devices that see different samples of each batch  [default: 1]")  # fmt: skip
@click.option("--one-process", is_flag=True, help="run all devices in this process, one after the other")
@click.option("--max-restarts", type=click.IntRange(min=0), default=0, metavar="K",
              help="start processes that were lost again, from the last checkpoint  [default: 0]")  # fmt: skip
@rank_timeout_option
@settings_options
@run_options
@click.option("--threads", type=click.IntRange(min=1), metavar="N",
              help="CPU threads of each process  [default: torch's; of several: OMP_NUM_THREADS, or cores shared out]")
@click.option("--device", metavar="NAME",
              help="cpu, cuda, cuda:1, mps  [default: cpu; of several processes: what --devices are]")  # fmt: skip
@click.option("--graph", "-g", type=click.Path(dir_okay=False), metavar="FILE",
              help="draw the error graph: .html, .svg, .png, .dot or .mmd (Mermaid)")  # fmt: skip
@reports_errors
def train(**options: Any) -> str | None:
    """Train MODEL with a wiring, on images or on data its file brings, and print its test error.

    \b
    reclra-compile train examples/mlp_digits.py --compare backprop
    reclra-compile train examples/mlp_mnist.py:relu -w depth1 \\
        --data mnist --data-dir FOLDER --seeds 3
    reclra-compile train model.py -w my.yaml --run-dir runs/first
    reclra-compile train model.py -w my.yaml --run-dir runs/first --resume
    reclra-compile train model.py --groups 4 --compare backprop
    reclra-compile train model.py --devices cpu:4 --microbatches 8

    A plan for several devices runs in as many processes on this host, each with the layers of one of them;
    `python -m reclra_compile.run --help` says how to run it on several hosts.

    Settings marked * come from the wiring's `training:` section where they are not given; epochs and
    batch size of the first wiring hold for all. The test part of the data is evaluated after every
    epoch: choose settings by the error on --validation images.

    Exit status: 0; 2 for a mistake in the input, or where the loss stops being finite or a process
    is lost (the last good checkpoint is kept); 130 after Ctrl-C.
    """
    try:
        return _train(options)
    except KeyboardInterrupt as stop:
        raise Interrupted(_kept(options["run_dir"], options["checkpoint_every"]), status_of(stop)) from stop


def _train(options: dict[str, Any]) -> str | None:
    import torch

    from reclra_compile.cli.launch_view import check_launch, check_options, launched, processes, threads
    from reclra_compile.cli.rank_view import StepLog
    from reclra_compile.cli.trace_view import TraceFile, traced
    from reclra_compile.cli.train_setup import set_up
    from reclra_compile.cli.training_records import Records
    from reclra_compile.cli.training_results import results_json
    from reclra_compile.cli.training_view import TrainingView
    from reclra_compile.errors import DataError, RankError, TrainingError
    from reclra_compile.train.job import Result
    from reclra_compile.view.draw import write_picture

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    check_options(options)
    setup = set_up(options)
    check_launch(setup, options)
    if options["graph"]:
        write_picture(setup.plans[setup.members[0].label], options["graph"])
    records = Records(
        setup, options, lambda plan: processes(plan, options) or 1, lambda ranks: options["threads"] or threads(ranks)
    )
    view = TrainingView(setup, options["as_json"], records)
    view.warn()
    results: list[Result] = []
    trace = TraceFile(options["trace"])
    try:
        with view:
            for member in setup.members:
                if processes(setup.plans[member.label], options):
                    results.append(launched(setup, member, options, view))
                else:
                    watcher = StepLog(view, options["log_every"])
                    results.append(setup.job.run(member, traced(watcher, member, setup.members, options)))
    except (TrainingError, DataError, RankError):
        view.summary(results)
        raise
    if options["as_json"]:
        return results_json(setup, results)
    view.summary(results)
    view.files({"error graph": options["graph"], "log": options["log"], "TensorBoard": options["tensorboard"],
                "checkpoints": options["run_dir"],
                "trace": trace.said(setup.plans[setup.members[0].label])})  # fmt: skip
    return None


def _kept(run_dir: str | None, within: int) -> str:
    """What is left of an interrupted job; `within`: steps between checkpoints in an epoch (0: none)."""
    from pathlib import Path

    from reclra_compile.train.checkpoint import checkpoint_of

    if not run_dir:
        return "nothing is kept; with --run-dir DIR a run can be resumed"
    if not any(checkpoint_of(folder).exists() for folder in Path(run_dir).glob("*/seed*")):
        return "there is no checkpoint yet" if within else "no epoch was done, so there is nothing to resume"
    kept = "the last checkpoint is kept" if within else "finished epochs are kept"
    return f"{kept}; the same command with --resume goes on"
