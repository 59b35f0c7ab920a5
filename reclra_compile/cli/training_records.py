"""What is written of training while it runs: --log, --tensorboard, and run.json in the folders of runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from reclra_compile import __version__
from reclra_compile.cli.train_setup import Setup
from reclra_compile.files import write_text
from reclra_compile.ir import Plan
from reclra_compile.train.environment import PROGRAM, command_line, environment
from reclra_compile.train.job import Member
from reclra_compile.train.jsonl import JsonLines
from reclra_compile.train.loop import Epoch, with_flags
from reclra_compile.train.steps import Step
from reclra_compile.train.tensorboard import TensorBoard
from reclra_compile.train.writers import Record, Writer

RUN_FILE = "run.json"
FORMAT = 1
#: options that say how a command is shown or gone on with, not what is run
NOT_OF_THE_RUN = ("resume", "as_json")


class Records:
    """The writers that the options ask for, told of all runs; raises UserError (F001, F002, Y001, Y005)."""

    def __init__(
        self, setup: Setup, options: dict[str, Any], processes: Callable[[Plan], int],
        threads: Callable[[int], int] | None = None,
    ) -> None:  # fmt: skip
        """`processes`: how many train a plan together; `threads`: of each of so many, where it is not this one."""
        self.setup, self.processes, self.threads = setup, processes, threads
        self.command = command_of(click.get_current_context(silent=True))
        self.environment = environment()
        self._options = options
        self._at: dict[str, tuple[int, float]] = {}  # samples and seconds of each run's last epoch
        self.writers: list[Writer] = []
        if options["tensorboard"]:
            plans = {run_name(m): setup.plans[m.label] for m in setup.members}
            self.writers.append(TensorBoard(options["tensorboard"], plans))
        if options["log"]:
            now = {"command": self.command, "environment": self.environment}
            resume = setup.job.resume
            self.writers.append(JsonLines(options["log"], self.header(), resume=resume, again=now))

    def header(self) -> dict[str, Any]:
        """What all runs of the command share, and which they are."""
        runs = [{"run": run_name(m), **self.facts(m, self.setup.plans[m.label])} for m in self.setup.members]
        return {"version": __version__, **self.shared(), "runs": runs, "environment": self.environment}

    def shared(self) -> dict[str, Any]:
        """Command, model and data."""
        job, plan = self.setup.job, next(iter(self.setup.plans.values()))
        parts = {part: job.data.count(part) for part in ("train", "valid", "test")}
        data = {"name": job.data.name, **parts, "preprocess": job.data.preprocess, "augment": job.augment}
        return {"command": self.command, "model": plan.model, "data": data, "measure": job.measure}

    def facts(self, member: Member, plan: Plan) -> dict[str, Any]:
        """Which run it is, and its settings."""
        settings = with_flags(plan.training, **self.setup.job.flags)
        return {"wiring": member.label, "seed": member.seed, "fingerprint": plan.fingerprint,
                "settings": asdict(settings)}  # fmt: skip

    def start(self, member: Member, epochs: int, taken: int, history: Sequence[Epoch], steps: int) -> None:
        """A run begins, or goes on after `epochs` epochs and `taken` steps, with `steps` in an epoch."""
        run, plan = run_name(member), self.setup.plans[member.label]
        for writer in self.writers:
            facts = {**self.shared(), **self.facts(member, plan)} if isinstance(writer, TensorBoard) else {}
            writer.begin(run, facts, epochs, taken)
        self._at[run] = (0, 0.0)
        for epoch in history:
            record = self._epoch(member, epoch, steps)
            for writer in self.writers:
                if isinstance(writer, JsonLines):  # which knows what it has; an event file keeps its own
                    writer.epoch(record)
        if member.folder is not None:
            self._keep(member, plan, taken)

    def step(self, member: Member, step: Step) -> None:
        """A step is done that is one of those to be written."""
        values = {"loss": step.loss, "discrepancy": step.discrepancy, "lr": step.lr, "seconds": step.seconds}
        record = Record(run_name(member), step.epoch, step.step, values, step.regions, _about(member))
        for writer in self.writers:
            writer.step(record)

    def epoch(self, member: Member, epoch: Epoch, steps: int) -> None:
        """An epoch of so many steps is done."""
        record = self._epoch(member, epoch, steps)
        for writer in self.writers:
            writer.epoch(record)

    def close(self) -> None:
        """All is written."""
        for writer in self.writers:
            writer.close()

    def _epoch(self, member: Member, epoch: Epoch, steps: int) -> Record:
        run = run_name(member)
        samples, seconds = self._at.get(run, (0, 0.0))
        seen = epoch.epoch * self.setup.job.data.count("train")
        speed = (seen - samples) / (epoch.seconds - seconds) if epoch.seconds > seconds else None
        self._at[run] = seen, epoch.seconds
        values = epoch.as_json()
        regions = values.pop("regions")
        return Record(run, values.pop("epoch"), epoch.epoch * steps, {**values, "samples_per_s": speed}, regions,
                      _about(member))  # fmt: skip

    def _keep(self, member: Member, plan: Plan, taken: int) -> None:
        """Leave word in the run's folder of what it is and how it is repeated."""
        assert member.folder is not None
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        file = member.folder / RUN_FILE
        known = _read(file) if taken else {}
        count = self.processes(plan)
        own = {"threads": self.threads(count)} if self.threads is not None and count > 1 else {}
        environment = {**self.environment, **own}
        again = {"step": taken, "at": now, "command": self.command, "environment": environment}
        if known.get("fingerprint") == plan.fingerprint:
            known = {**known, **self.facts(member, plan), "resumed": [*known.get("resumed", []), again]}
        else:
            known = {
                "format": FORMAT, "version": __version__, **self.shared(), **self.facts(member, plan),
                "options": options_of(self._options), "devices": [d.name for d in plan.devices],
                "processes": count, "begun": now, "environment": environment, "resumed": [],
            }  # fmt: skip
        write_text(file, json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def run_name(member: Member) -> str:
    """What a run is called in logs: its wiring and its seed."""
    label = member.folder.parent.name if member.folder is not None else member.label.replace(os.sep, "_")
    return f"{label}/seed{member.seed}"


def command_of(ctx: click.Context | None) -> list[str]:
    """The command as it can be given again: what was given, but --resume and --json."""
    if ctx is None:
        return command_line()
    named: list[str] = []
    plain: list[str] = []
    for parameter in ctx.command.params:
        name, value = str(parameter.name), ctx.params.get(str(parameter.name))
        given = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if isinstance(parameter, click.Argument):
            plain.append(str(value))
        elif given and name not in NOT_OF_THE_RUN and isinstance(parameter, click.Option) and not parameter.hidden:
            flag = next(o for o in parameter.opts if o.startswith("--"))
            values = value if parameter.multiple and isinstance(value, (tuple, list)) else [value]
            named += [flag] * bool(value) if parameter.is_flag else [w for v in values for w in (flag, _word(v))]
    words = command_line([*plain, *named])[1:]
    if ctx.command.name == "run":  # a rank: how many there are is the launcher's to say
        local = os.environ.get("LOCAL_WORLD_SIZE", "1")
        # after --, or torchrun takes --log for one of its own options
        return ["torchrun", "--nproc-per-node", local, "-m", "--", "reclra_compile.run", *words]
    return [PROGRAM, str(ctx.command.name), *words]


def options_of(options: dict[str, Any]) -> dict[str, Any]:
    """Those of a command's options that say what is run, as plain data."""
    left_out = (*NOT_OF_THE_RUN, "log", "tensorboard", "run_dir", "graph", "trace", "label")
    plain = (str, int, float, bool, list, tuple, type(None))
    known = {k: v for k, v in options.items() if k not in left_out and isinstance(v, plain)}
    return {k: command_line([v])[1] if isinstance(v, str) else v for k, v in known.items()}


def _about(member: Member) -> dict[str, Any]:
    return {"wiring": member.label, "seed": member.seed}


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
