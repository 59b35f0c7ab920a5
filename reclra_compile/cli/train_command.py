"""`reclra-compile train MODEL`: train with a wiring, beside others from the same seed and budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from reclra_compile.cli.errors import reports_errors

if TYPE_CHECKING:
    from reclra_compile.train.job import Result

DATA = ("digits", "mnist", "fashion_mnist", "cifar10", "folder")


@click.command()
@click.argument("model")
@click.option("--wiring", "-w", metavar="FILE|NAME", help="wiring file or shipped name  [default: depth2]")
@click.option("--plan", metavar="PLAN", help="run a plan file instead of a wiring; it is checked against MODEL")
@click.option("--compare", "-c", multiple=True, metavar="FILE|NAME",
              help="also train this wiring from the same weights, data order and epochs; may be repeated")  # fmt: skip
@click.option("--data", type=click.Choice(DATA), default="digits", show_default=True, help="data set")
@click.option("--data-dir", metavar="DIR", help="where the data set's files are  [default: $RECLRA_DATA]")
@click.option("--validation", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="hold N training images out and report their error")  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), help="passes over the training data  [default: the wiring's]")
@click.option("--batch-size", type=click.IntRange(min=1), help="samples per step  [default: the wiring's]")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="learning rate  [default: the wiring's]")
@click.option("--optimizer", type=click.Choice(["sgd", "adam", "adamw"]), help="[default: the wiring's]")
@click.option("--weight-decay", type=click.FloatRange(min=0), help="[default: the wiring's]")
@click.option("--schedule", type=click.Choice(["constant", "linear", "cosine"]), help="[default: the wiring's]")
@click.option("--clip", type=click.FloatRange(min=0), help="largest gradient norm, 0 for none  [default: the wiring's]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="first seed")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, metavar="K",
              help="train with K seeds and report mean ± standard deviation")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads  [default: torch's]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps")
@click.option("--run-dir", type=click.Path(file_okay=False), metavar="DIR",
              help="keep checkpoint.pt, log.jsonl and plan.txt of each run under DIR/<wiring>/seed<k>")  # fmt: skip
@click.option("--resume", is_flag=True, help="go on from the checkpoints in --run-dir")
@click.option("--log", type=click.Path(dir_okay=False), metavar="FILE.jsonl", help="write every epoch of every run")
@click.option("--graph", "-g", type=click.Path(dir_okay=False), metavar="FILE", help="draw the error graph as well")
@click.option("--json", "as_json", is_flag=True, help="print the results as JSON")
@reports_errors
def train(**options: Any) -> None:
    """Train MODEL with a wiring on image data and print its test error.

    \b
    reclra-compile train examples/mlp_digits.py --compare backprop
    reclra-compile train examples/mlp_mnist.py:relu -w depth1 --data mnist --data-dir FOLDER --seeds 3
    reclra-compile train model.py -w my.yaml --run-dir runs/first           (again with --resume to go on)

    Each data set's test part is evaluated after every epoch; choose settings on --validation images.
    Settings without a flag come from the wiring's `training:` section.

    Exit status: 0; 2 for a mistake in the input, or where the loss stops being finite (the last good
    checkpoint is kept).
    """
    from reclra_compile.cli.training_view import TrainingView

    results = _train(options, TrainingView(quiet=options["as_json"]))
    if options["as_json"]:
        from reclra_compile.cli.training_view import results_json

        click.echo(results_json(results))


def _train(options: dict[str, Any], view: Any) -> list[Result]:
    import torch

    from reclra_compile.data.sets import load
    from reclra_compile.errors import Fault, TrainingError
    from reclra_compile.files import write_text
    from reclra_compile.train.job import Job
    from reclra_compile.view.draw import write_picture

    if options["resume"] and not options["run_dir"]:
        raise TrainingError(Fault("T022", "--resume needs --run-dir", fix="say where the checkpoints are"))
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    data = load(options["data"], options["data_dir"], validation=options["validation"])
    flags = {k: options[k] for k in ("epochs", "batch_size", "lr", "optimizer", "weight_decay", "schedule", "clip")}
    job = Job(options["model"], data, flags, options["resume"], _device(options["device"]))
    results: list[Result] = []
    with view:
        for member in _members(options):
            view.start(member)
            results.append(job.run(member, view.epoch, view.step))
            if options["log"]:
                write_text(options["log"], view.log())
    if options["graph"]:
        write_picture(results[0].plan, options["graph"])
    view.summary(results, options["graph"])
    return results


def _members(options: dict[str, Any]) -> list[Any]:
    from pathlib import Path

    from reclra_compile.errors import Fault, Location, PlanError
    from reclra_compile.ir import Plan
    from reclra_compile.train.job import Member

    plan = None
    if options["plan"]:
        if options["wiring"]:
            raise PlanError(Fault("P012", "give --wiring or --plan, not both"))
        try:
            plan = Plan.parse(Path(options["plan"]).read_text(encoding="utf-8"), options["plan"])
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(Fault("P013", f"the plan cannot be read: {error}", Location(options["plan"]))) from error
    first = None if plan else options["wiring"] or "depth2"
    wirings = [(plan.name if plan else Path(str(first)).stem, first, plan)]
    wirings += [(Path(w).stem, w, None) for w in options["compare"]]
    labels = [label for label, _, _ in wirings]
    members = []
    for k, (name, wiring, given) in enumerate(wirings):
        label = name if labels.count(name) == 1 else f"{name}#{k + 1}"
        for seed in range(options["seed"], options["seed"] + options["seeds"]):
            folder = Path(options["run_dir"]) / label / f"seed{seed}" if options["run_dir"] else None
            members.append(Member(label, wiring, given, seed, folder))
    return members


def _device(name: str) -> str:
    import torch

    from reclra_compile.errors import Fault, TrainingError

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(Fault("T023", f"device '{name}' cannot be used: {reason}", fix="use --device cpu")) from error
    return name
