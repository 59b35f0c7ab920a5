"""`reclra-compile train MODEL`: train with a wiring, beside others from the same seed and budget."""

from __future__ import annotations

from typing import Any

import click

from reclra_compile.cli.auto_options import auto_options
from reclra_compile.cli.errors import Interrupted, reports_errors
from reclra_compile.cli.options import granularity_option, machine_options, output_option, unreached_option

DATA = ("digits", "mnist", "fashion_mnist", "cifar10", "folder", "imagefolder")
PREPROCESS = ("none", "standardize", "gcn", "gcn_zca")
AUGMENT = ("none", "flip", "crop_flip", "resized_crop_flip")


@click.command(short_help="Train MODEL with a wiring and print its test error.")
@click.argument("model")
@click.option("--wiring", "-w", metavar="FILE|NAME", help="wiring file or shipped name  [default: depth2]")
@click.option("--plan", metavar="PLAN", help="run a plan file instead of a wiring; it is checked against MODEL")
@click.option("--compare", "-c", multiple=True, metavar="FILE|NAME",
              help="also train this wiring from the same weights, with the same data order, batch size and epochs; "
              "may be repeated")  # fmt: skip
@click.option("--data", type=click.Choice(DATA), help="data set  [default: what MODEL's file brings, else digits]")
@click.option("--data-dir", metavar="DIR", help="where the data set's files are  [default: $RECLRA_DATA]")
@click.option("--validation", type=click.IntRange(min=0), default=0, metavar="N",
              help="hold N training images out and report their error  [default: 0]")  # fmt: skip
@click.option("--preprocess", type=click.Choice(PREPROCESS), default="none",
              help="of images, fitted on the training part: channels standardised, contrast normalised, and ZCA "
              "whitened  [default: none]")  # fmt: skip
@click.option("--augment", type=click.Choice(AUGMENT),
              help="random changes of training images  [default: none; imagefolder: resized_crop_flip]")
@click.option("--workers", type=click.IntRange(min=1), metavar="N",
              help="threads that decode the images of imagefolder  [default: CPUs, at most 16]")
@granularity_option
@output_option
@unreached_option
@machine_options
@auto_options
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="passes over the training data  [default: *]")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="samples per step  [default: *]")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), metavar="X", help="learning rate  [default: *]")
@click.option("--optimizer", type=click.Choice(["sgd", "adam", "adamw"]), help="sgd has momentum 0.9  [default: *]")
@click.option("--weight-decay", type=click.FloatRange(min=0), metavar="X", help="[default: *]")
@click.option("--schedule", type=click.Choice(["constant", "linear", "cosine", "polynomial"]),
              help="how the learning rate falls over the epochs  [default: *]")  # fmt: skip
@click.option("--lr-end", type=click.FloatRange(min=0), metavar="X",
              help="rate at which the polynomial schedule ends  [default: *]")
@click.option("--power", type=click.FloatRange(min=0, min_open=True), metavar="X",
              help="exponent of the polynomial schedule  [default: *]")
@click.option("--warmup", type=click.FloatRange(min=0), metavar="X",
              help="how long the rate rises: below 1 a share of the run, from 1 on epochs  [default: *]")
@click.option("--readout-rate", type=click.FloatRange(min=0, min_open=True), metavar="X",
              help="factor on the rate of local_readout synapses  [default: *]")
@click.option("--inverse-rate", type=click.FloatRange(min=0, min_open=True), metavar="X",
              help="factor on the rate of learned inverses (autoencoding)  [default: *]")
@click.option("--mirror-rate", type=click.FloatRange(min=0, min_open=True), metavar="X",
              help="factor on the rate of mirrors that learn from noise (weight_mirror)  [default: *]")
@click.option("--beta2", type=click.FloatRange(min=0, max=1, max_open=True), metavar="X",
              help="decay of Adam's second moments  [default: *]")
@click.option("--clip", type=click.FloatRange(min=0), metavar="X", help="largest gradient norm, 0: any  [default: *]")
@click.option("--top5", is_flag=True, help="report the top-5 test error too  [default: with 100 classes or more]")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="first seed  [default: 0]")
@click.option("--seeds", type=click.IntRange(min=1), default=1, metavar="K",
              help="train with K seeds and report mean ± standard deviation  [default: 1]")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads  [default: torch's]")
@click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, mps  [default: cpu]")
@click.option("--run-dir", type=click.Path(file_okay=False), metavar="DIR",
              help="keep checkpoint.pt, log.jsonl and plan.txt of each run in DIR/<wiring>/seed<k>")  # fmt: skip
@click.option("--resume", is_flag=True, help="go on from the checkpoints in --run-dir")
@click.option("--log", type=click.Path(dir_okay=False), metavar="FILE.jsonl", help="write every epoch of every run")
@click.option("--graph", "-g", type=click.Path(dir_okay=False), metavar="FILE",
              help="draw the error graph: .html, .svg, .png or .dot")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print the results as JSON")
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

    Settings marked * come from the wiring's `training:` section where they are not given; epochs and
    batch size of the first wiring hold for all. The test part of the data is evaluated after every
    epoch: choose settings by the error on --validation images.

    Exit status: 0; 2 for a mistake in the input, or where the loss stops being finite (the last good
    checkpoint is kept); 130 after Ctrl-C.
    """
    try:
        return _train(options)
    except KeyboardInterrupt as stop:
        raise Interrupted(_kept(options["run_dir"])) from stop


def _train(options: dict[str, Any]) -> str | None:
    import torch

    from reclra_compile.cli.train_setup import set_up
    from reclra_compile.cli.training_view import TrainingView, results_json
    from reclra_compile.errors import DataError, TrainingError
    from reclra_compile.train.job import Result
    from reclra_compile.view.draw import write_picture

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    setup = set_up(options)
    if options["graph"]:
        write_picture(setup.plans[setup.members[0].label], options["graph"])
    view = TrainingView(setup, options["as_json"], options["log"])
    results: list[Result] = []
    try:
        with view:
            for member in setup.members:
                results.append(setup.job.run(member, view))
    except (TrainingError, DataError):
        view.summary(results)
        raise
    if options["as_json"]:
        return results_json(setup, results)
    view.summary(results)
    view.files({"error graph": options["graph"], "log": options["log"], "checkpoints": options["run_dir"]})
    return None


def _kept(run_dir: str | None) -> str:
    """What is left of an interrupted job, in a sentence."""
    from pathlib import Path

    if not run_dir:
        return "nothing is kept; with --run-dir DIR a run can be resumed"
    if not any(Path(run_dir).glob("*/seed*/checkpoint.pt")):
        return "no epoch was done, so there is nothing to resume"
    return "finished epochs are kept; the same command with --resume goes on"
