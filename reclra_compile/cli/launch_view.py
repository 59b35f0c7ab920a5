"""Runs of `train` whose plan has several devices: as many processes are started, and shown as one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from reclra_compile.cli.errors import Interrupted, status_of
from reclra_compile.cli.rank_view import kept_in_words
from reclra_compile.cli.train_setup import SETTINGS, Setup
from reclra_compile.cli.training_view import TrainingView
from reclra_compile.distributed import word
from reclra_compile.distributed.devices import check_devices, device_type
from reclra_compile.distributed.launch import Launch
from reclra_compile.distributed.report import name_of
from reclra_compile.files import make_folder, write_text
from reclra_compile.ir import Plan, Training
from reclra_compile.runtime.microbatch import fewest_samples
from reclra_compile.train.job import Member, Result
from reclra_compile.train.loop import Epoch, with_flags
from reclra_compile.train.measure import Measure
from reclra_compile.train.replicas import check_batches
from reclra_compile.train.steps import Live, Step

#: options that ranks get as they were given, beside the settings
PASSED = ("data", "data_dir", "validation", "preprocess", "augment", "workers", "output", "unreached", "init",
          "checkpoint_every", "log_every", "rank_timeout", "trace", "trace_steps")  # fmt: skip


@dataclass
class Remote:
    """What rank 0 has told of a run, as a `training_view.Shown`."""

    steps: int
    epoch: int
    taken: int
    settings: Training
    measure: Measure
    valid: tuple[Any, range]
    kept: str = ""
    live: Live | None = None


@dataclass
class Told:
    """Shows the events of a run's rank 0, and keeps its epochs."""

    view: TrainingView
    member: Member
    folder: Path
    restarts: int
    history: list[Epoch] = field(default_factory=list)
    run: Remote | None = None

    @property
    def kept(self) -> str:
        """What is left where the ranks fail now, in a clause."""
        return kept_in_words(self.member, self.run.kept) if self.run else ""

    def __call__(self, event: dict[str, Any]) -> None:
        """One event of `rank_view.EventView`."""
        if event["event"] == "start":
            self._start(event)
            return
        assert self.run is not None
        if event["event"] == "logged":
            self.view.logged(self.member, Step(**event["record"]))
            return
        self.run.taken, self.run.kept = event["taken"], event["kept"]
        if event["event"] == "step":
            self.run.live = Live(**event["live"]) if event["live"] else None
            self.view.step(self.member, self.run)
            return
        epoch = Epoch(**event["record"])
        self.history.append(epoch)
        self.run.epoch = epoch.epoch
        self.view.epoch(self.member, self.run, epoch)
        self.view.step(self.member, self.run)

    def _start(self, event: dict[str, Any]) -> None:
        self.history = [Epoch(**e) for e in event["history"]]
        self.run = Remote(
            event["steps"], event["epoch"], event["taken"], Training(**event["settings"]), event["measure"],
            ((), range(event["valid"])), event["kept"],
        )  # fmt: skip
        attempt = event["attempt"]
        if attempt:
            causes = word.said(self.folder, attempt - 1)
            cause = f" after {causes[0].faults[0].message}" if causes else ""
            self.view.again(f"started again ({attempt} of {self.restarts}){cause}")
        self.view.start(self.member, self.run, self.history)


def processes(plan: Plan, options: dict[str, Any]) -> int:
    """How many processes are started to run a plan; 0 where this one does."""
    if options["one_process"]:
        return 0
    count = len(plan.devices) * int(options["replicas"])
    return count if count > 1 or options["init"] == "regions" else 0


def check_launch(setup: Setup, options: dict[str, Any]) -> None:
    """Raise what all ranks would say as they begin.

    RankError (R103) where this host has not the devices for all of them, TrainingError (T030) where a batch is too
    small for the replicas, UserError (F002) where a run's folder cannot be made.
    """
    for plan in setup.plans.values():
        check_devices(device_type(plan, options["device"]), processes(plan, options))
        size = with_flags(plan.training, **setup.job.flags).batch_size
        fewest = fewest_samples([setup.loaded.model])
        check_batches(setup.job.data.count("train"), size, options["replicas"], fewest)
    for member in setup.members:
        if member.folder is not None and processes(setup.plans[member.label], options):
            _can_make(member.folder)


def _can_make(folder: Path) -> None:
    """Raise UserError (F002) where the folder cannot be made; it is left as it was."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        make_folder(folder)
    finally:
        for place in new:
            with contextlib.suppress(OSError):
                place.rmdir()


def check_options(options: dict[str, Any]) -> None:
    """Raise UsageError for options that exclude each other."""
    if not options["one_process"]:
        return
    if options["replicas"] > 1:
        raise click.UsageError("--replicas are processes: leave --one-process out")
    if options["init"] == "regions":
        raise click.UsageError("--init regions is for processes with a device each: leave --one-process out")


def launched(setup: Setup, member: Member, options: dict[str, Any], view: TrainingView) -> Result:
    """Train one member in as many processes as its plan has devices, times the replicas; raises as `Launch.run`."""
    plan = setup.plans[member.label]
    ranks = processes(plan, options)
    with tempfile.TemporaryDirectory(prefix="reclra-ranks-") as place:
        folder = Path(place)
        file = folder / "plan.txt"
        write_text(file, str(plan))
        told = Told(view, member, folder, options["max_restarts"])
        launch = Launch(
            ["-m", "reclra_compile.run", *_arguments(setup, member, options, file, ranks)], ranks, folder,
            name=lambda rank: name_of(rank, plan), kept=lambda: told.kept, restarts=options["max_restarts"],
            environment={"OMP_NUM_THREADS": str(options["threads"] or threads(ranks))},
        )  # fmt: skip
        try:
            launch.run(told)
        except KeyboardInterrupt as stop:
            if told.kept:
                raise Interrupted(told.kept, status_of(stop)) from stop
            raise
    return Result(member, plan, with_flags(plan.training, **setup.job.flags), tuple(told.history))


def _arguments(setup: Setup, member: Member, options: dict[str, Any], plan: Path, ranks: int) -> list[str]:
    """The command line of a rank."""
    job = setup.job
    given = {name: options[name] for name in PASSED} | {name: job.flags[name] for name in SETTINGS}
    given |= {"seed": member.seed, "threads": options["threads"] or threads(ranks), "label": member.label,
              "device": device_type(setup.plans[member.label], options["device"])}  # fmt: skip
    if member is not setup.members[0]:
        given["trace"] = None  # of several runs the first one is recorded
    if member.folder is not None:
        given["run_dir"] = str(member.folder.parents[1])
    flags = [name for name, on in (("--top5", options["top5"]), ("--resume", job.resume)) if on]
    named = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    return [*named, *flags, "--", str(plan), options["model"]]


def threads(ranks: int) -> int:
    """CPU threads of each of the processes on this host: OMP_NUM_THREADS, or else its cores shared out."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit() and int(named):
        return int(named)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // ranks)
