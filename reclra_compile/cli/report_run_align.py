"""The runs of a report as jobs again, from what they remember of the command that made them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from reclra_compile.cli.train_command import train
from reclra_compile.cli.train_setup import set_up
from reclra_compile.errors import Fault, Location, UserError
from reclra_compile.report.runs import Run
from reclra_compile.train.job import Job, Member

#: of train's options those that a run's plan and seed have answered
ANSWERED: dict[str, Any] = {
    "wiring": None, "compare": (), "granularity": None, "devices": None, "device_profile": None, "device_memory": None,
    "microbatches": None, "staleness": None, "pins": (), "auto": False, "depth": None, "bottlenecks": None,
    "synapse_memory": None, "groups": None, "seeds": 1, "device": None, "init": "build", "run_dir": None,
    "resume": False, "log": None, "tensorboard": None, "graph": None,
}  # fmt: skip


def job_of(
    run: Run, model: str | None, data_dir: str | None, notice: Callable[[str], None]
) -> tuple[Job, Member]:
    """The job that trains a run's plan with its seed, in this process.

    `model` and `data_dir` stand in place of what the run remembers where they are given; `notice` hears which model is
    loaded. Raises ReclraError.
    """
    options = options_of(run, model, data_dir)
    notice(str(options["model"]))
    setup = set_up(options)
    member = setup.members[0]
    return setup.job, Member(member.label, None, setup.plans[member.label], run.seed, None)


def options_of(run: Run, model: str | None, data_dir: str | None) -> dict[str, Any]:
    """The options of `train` for a run's plan and its seed alone."""
    kept = {k: _expanded(v) for k, v in (run.about.get("options") or {}).items()}
    file = model or str(kept.get("model"))
    usual = dict(train.make_context("train", [file]).params)
    own = _checked(run, {k: v for k, v in kept.items() if k in usual})
    told = {"model": file, "data_dir": data_dir or own.get("data_dir"), "plan": str(run.folder / "plan.txt"),
            "seed": run.seed}  # fmt: skip
    return {**usual, **own, **ANSWERED, **told}


def _checked(run: Run, own: dict[str, Any]) -> dict[str, Any]:
    """The options as the command line would take them; raises UserError (Y004) where it would not."""
    context, made = train.make_context("train", ["model"]), dict(own)
    for parameter in train.params:
        value = own.get(str(parameter.name))
        try:
            if value is not None:
                made[str(parameter.name)] = parameter.type_cast_value(context, value)
        except click.BadParameter as error:
            raise UserError(
                Fault("Y004", f"{parameter.name} of its options is wrong: {error.message}",
                      Location(str(run.folder / "run.json")), "put a copy of the file back")
            ) from error
    return made


def _expanded(value: Any) -> Any:
    """A word of run.json with the user's own folder in place of $HOME."""
    return value.replace("$HOME", os.path.expanduser("~")) if isinstance(value, str) else value
