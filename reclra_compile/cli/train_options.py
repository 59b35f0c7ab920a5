"""What `train` and the ranks that it starts are told: data, settings, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DATA = ("digits", "mnist", "fashion_mnist", "cifar10", "folder", "imagefolder")
PREPROCESS = ("none", "standardize", "gcn", "gcn_zca")
AUGMENT = ("none", "flip", "crop_flip", "resized_crop_flip")



def _steps(context: click.Context, parameter: click.Parameter, text: str) -> str:
    first, dash, last = text.partition("-")
    numbers = (first, last if dash else first)
    if not all(n.isascii() and n.isdigit() and int(n) for n in numbers) or int(numbers[0]) > int(numbers[1]):
        raise click.BadParameter(f"'{text}' is no step or range of steps, such as 7 or 2-5")
    return "-".join(numbers)


_DATA = (
    click.option("--data", type=click.Choice(DATA), help="data set  [default: what MODEL's file brings, else digits]"),
    click.option("--data-dir", metavar="DIR", help="where the data set's files are  [default: $RECLRA_DATA]"),
    click.option("--validation", type=click.IntRange(min=0), default=0, metavar="N",
                 help="hold N training images out and report their error  [default: 0]"),
    click.option("--preprocess", type=click.Choice(PREPROCESS), default="none",
                 help="of images, fitted on the training part: channels standardised, contrast normalised, and ZCA "
                 "whitened  [default: none]"),
    click.option("--augment", type=click.Choice(AUGMENT),
                 help="random changes of training images  [default: none; imagefolder: resized_crop_flip]"),
    click.option("--workers", type=click.IntRange(min=1), metavar="N",
                 help="threads that decode the images of imagefolder  [default: CPUs, at most 16]"),
)  # fmt: skip

_SETTINGS = (
    click.option("--epochs", type=click.IntRange(min=1), metavar="N",
                 help="passes over the training data  [default: *]"),
    click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="samples per step  [default: *]"),
    click.option("--lr", type=click.FloatRange(min=0, min_open=True), metavar="X", help="learning rate  [default: *]"),
    click.option("--optimizer", type=click.Choice(["sgd", "adam", "adamw"]), help="sgd has momentum 0.9  [default: *]"),
    click.option("--weight-decay", type=click.FloatRange(min=0), metavar="X", help="[default: *]"),
    click.option("--schedule", type=click.Choice(["constant", "linear", "cosine", "polynomial"]),
                 help="how the learning rate falls over the epochs  [default: *]"),
    click.option("--lr-end", type=click.FloatRange(min=0), metavar="X",
                 help="rate at which the polynomial schedule ends  [default: *]"),
    click.option("--power", type=click.FloatRange(min=0, min_open=True), metavar="X",
                 help="exponent of the polynomial schedule  [default: *]"),
    click.option("--warmup", type=click.FloatRange(min=0), metavar="X",
                 help="how long the rate rises: below 1 a share of the run, from 1 on epochs  [default: *]"),
    click.option("--readout-rate", type=click.FloatRange(min=0, min_open=True), metavar="X",
                 help="factor on the rate of local_readout synapses  [default: *]"),
    click.option("--inverse-rate", type=click.FloatRange(min=0, min_open=True), metavar="X",
                 help="factor on the rate of learned inverses (autoencoding)  [default: *]"),
    click.option("--mirror-rate", type=click.FloatRange(min=0, min_open=True), metavar="X",
                 help="factor on the rate of mirrors that learn from noise (weight_mirror)  [default: *]"),
    click.option("--beta2", type=click.FloatRange(min=0, max=1, max_open=True), metavar="X",
                 help="decay of Adam's second moments  [default: *]"),
    click.option("--clip", type=click.FloatRange(min=0), metavar="X",
                 help="largest gradient norm, 0: any  [default: *]"),
    click.option("--top5", is_flag=True, help="report the top-5 test error too  [default: with 100 classes or more]"),
)  # fmt: skip

_RUNS = (
    click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="first seed  [default: 0]"),
    click.option("--seeds", type=click.IntRange(min=1), default=1, metavar="K",
                 help="train with K seeds and report mean ± standard deviation  [default: 1]"),
    click.option("--init", type=click.Choice(["build", "regions"]), default="build",
                 help="weights before training: those of the built model, or drawn anew region by region, so that no "
                 "process ever holds the whole model  [default: build]"),
    click.option("--run-dir", type=click.Path(file_okay=False), metavar="DIR",
                 help="keep checkpoints, log.jsonl, plan.txt and run.json of each run in DIR/<wiring>/seed<k>"),
    click.option("--resume", is_flag=True, help="go on from the checkpoints in --run-dir"),
    click.option("--checkpoint-every", type=click.IntRange(min=0), default=0, metavar="STEPS",
                 help="save within epochs too, every so many steps  [default: 0, after each epoch]"),
    click.option("--log", type=click.Path(dir_okay=False), metavar="FILE.jsonl",
                 help="write a header and every epoch of every run, as lines of JSON"),
    click.option("--log-every", type=click.IntRange(min=0), default=0, metavar="STEPS",
                 help="write single steps too, every so many, to --log and --tensorboard  [default: 0, none]"),
    click.option("--tensorboard", type=click.Path(file_okay=False), metavar="DIR",
                 help="write every run for TensorBoard, in DIR/<wiring>/seed<k>"),
    click.option("--trace", type=click.Path(dir_okay=False), metavar="FILE",
                 help="record when the tasks of some steps run, for ui.perfetto.dev and `graph --trace`"),
    click.option("--trace-steps", default="2-5", metavar="A-B", callback=_steps,
                 help="which steps --trace records  [default: 2-5]"),
    click.option("--json", "as_json", is_flag=True, help="print the results as JSON"),
)  # fmt: skip

rank_timeout_option = click.option(
    "--rank-timeout", type=click.FloatRange(min=0, min_open=True), default=300.0, metavar="SECONDS",
    help="longest wait of a process for another one  [default: 300]",
)  # fmt: skip


def _all(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def decorated(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def data_options(command: F) -> F:
    """Which data, and what is done to it."""
    return _all(_DATA)(command)


def settings_options(command: F) -> F:
    """Epochs, batch size, optimizer and rates; None is what the wiring says."""
    return _all(_SETTINGS)(command)


def run_options(command: F) -> F:
    """Seeds, first weights, and what is kept of the runs."""
    return _all(_RUNS)(command)
