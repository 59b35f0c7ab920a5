"""`reclra-compile diagnose MODEL`: train briefly, measure every region, and say in plain words what to change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from reclra_compile.cli.errors import reports_errors
from reclra_compile.cli.options import granularity_option, output_option, unreached_option
from reclra_compile.cli.sections import Sectioned
from reclra_compile.cli.train_command import train
from reclra_compile.cli.train_options import DATA


@click.command(cls=Sectioned, short_help="Train MODEL briefly and say what is wrong with its errors.")
@click.argument("model")
@click.option("--wiring", "-w", metavar="FILE|NAME", help="wiring file or shipped name  [default: depth2]")
@click.option("--data", type=click.Choice(DATA), help="data set  [default: what MODEL's file brings, else digits]")
@click.option("--data-dir", metavar="DIR", help="where the data set's files are  [default: $RECLRA_DATA]")
@granularity_option
@output_option
@unreached_option
@click.option("--steps", type=click.IntRange(min=1), metavar="N",
              help="end after N optimizer steps  [default: 200, or all of --epochs]")  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), metavar="N",
              help="length of the learning rate's schedule, and of training without --steps  [default: *]")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="samples per step  [default: *]")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), metavar="X", help="learning rate  [default: *]")
@click.option("--optimizer", type=click.Choice(["sgd", "adam", "adamw"]), help="sgd has momentum 0.9  [default: *]")
@click.option("--readout-rate", type=click.FloatRange(min=0, min_open=True), metavar="X",
              help="factor on the rate of local_readout synapses  [default: *]")
@click.option("--weight-decay", type=click.FloatRange(min=0), metavar="X", help="[default: *]")
@click.option("--warmup", type=click.FloatRange(min=0), metavar="X",
              help="share of the run, or epochs from 1 on, over which the rate rises  [default: *]")  # fmt: skip
@click.option("--clip", type=click.FloatRange(min=0), metavar="X", help="largest gradient norm, 0: any  [default: *]")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="[default: 0]")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads  [default: torch's]")
@click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, mps  [default: cpu]")
@click.option("--out", "-o", type=click.Path(dir_okay=False), metavar="FILE", help="picture: .html, .svg or .png")
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
@reports_errors
def diagnose(**options: Any) -> str | None:
    """Train MODEL briefly and report what each region hears: angle to the gradient, errors, targets, synapses.

    \b
    reclra-compile diagnose examples/mlp_digits.py -w depth1
    reclra-compile diagnose model.py -w my.yaml --steps 500 --out diagnosis.html
    reclra-compile diagnose model.py -w depth1 --lr 0.05 --json

    It measures on one batch, before the first step and after each quarter of the steps, and leaves no trace in the
    run it watches. Warnings say which setting to change. Settings marked * come from the wiring's `training:`
    section.

    Exit status: 0, with warnings too; 2 for a mistake in the input; 130 after Ctrl-C.
    """
    import torch

    from reclra_compile.cli.bar import DoneBar
    from reclra_compile.cli.diagnose_view import diagnosis_json, print_diagnosis
    from reclra_compile.cli.report import note
    from reclra_compile.cli.train_setup import set_up
    from reclra_compile.diagnose.advice import findings
    from reclra_compile.diagnose.draw import check_picture, write_diagnosis
    from reclra_compile.diagnose.gather import gathered
    from reclra_compile.diagnose.run import STEPS, diagnose

    if options["out"]:
        check_picture(options["out"])
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    steps = options["steps"] or (None if options["epochs"] else STEPS)
    setup = set_up({**_defaults_of_train(options["model"]), **options})
    member = setup.members[0]
    if (plan := gathered(setup.plans[member.label])) != setup.plans[member.label]:  # the wiring asks for devices
        member = replace(member, wiring=None, plan=plan)
    with DoneBar("diagnose", "steps", options["as_json"]) as progress:
        diagnosis = diagnose(setup.job, member, steps, progress.step)
    found = findings(diagnosis)
    if options["out"]:
        write_diagnosis(diagnosis, found, options["out"])
    if options["as_json"]:
        return diagnosis_json(diagnosis, found)
    print_diagnosis(diagnosis, found)
    if options["out"]:
        note(f"picture written to {options['out']}")
    return None


def _defaults_of_train(model: str) -> dict[str, Any]:
    """What `train` would be given for options that this command does not have."""
    return dict(train.make_context("train", [model]).params)
