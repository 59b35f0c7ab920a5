"""What a rank's training looks like from outside: lines for people, events for a launcher, or nothing."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Protocol

from reclra_compile.distributed import word
from reclra_compile.distributed.heartbeat import Heartbeat
from reclra_compile.train.checkpoint import checkpoint_of
from reclra_compile.train.job import Member, Watcher
from reclra_compile.train.loop import Epoch, Run
from reclra_compile.train.steps import Live, Step, due, live_part, step_of

#: seconds between two events of steps, and between two words of a rank on the loss that it knows
OFTEN, SHARED = 0.05, 0.25
#: from this many ranks on, the first one asks them less often
MANY = 8


class StepWatcher(Watcher, Protocol):
    """A watcher that hears of single steps as they are written to logs."""

    def logged(self, member: Member, step: Step) -> None:
        """One of the steps that are written is done."""


class StepLog:
    """Passes on what happens in one process, and every so many steps what is known of one (0: never)."""

    def __init__(self, view: StepWatcher, every: int) -> None:
        self._view, self._every = view, every
        self.start, self.epoch = view.start, view.epoch

    def step(self, member: Member, run: Run) -> None:
        """One optimizer step is done."""
        self._view.step(member, run)
        if due(run, self._every):
            self._view.logged(member, step_of(run))


def kept_in_words(member: Member | None, kept: str) -> str:
    """What is left of a run whose ranks fail, in a clause; `kept` is how far its newest checkpoint is."""
    if member is None:
        return ""
    if member.folder is None:
        return "nothing is kept; with --run-dir DIR a run can be resumed"
    if not kept:
        return "there is no checkpoint yet"
    return f"the last checkpoint, after {kept}, is in {checkpoint_of(member.folder)}: go on with --resume"


class RankView:
    """Lets the heart beat at the place of the program that runs, and passes on what happens to the view of rank 0.

    All ranks know every so many steps together (0: none); within epochs each leaves word of its part of the loss.
    """

    def __init__(self, heartbeat: Heartbeat, view: StepWatcher | None, every: int = 0) -> None:
        self._heartbeat, self._view, self._every = heartbeat, view, every
        self._shared = 0.0
        self._running: tuple[Member, Run] | None = None

    @property
    def kept(self) -> str:
        """What is left where the ranks fail now, in a clause."""
        return kept_in_words(self._running[0], self._running[1].kept) if self._running else ""

    def start(self, member: Member, run: Run, history: list[Epoch]) -> None:
        """A run begins, or goes on after the epochs of `history`."""
        self._running = member, run
        if hasattr(run.program, "watch"):
            run.program.watch = self._heartbeat
        if self._heartbeat.rank:
            self._heartbeat.tell("live", "0.0 0.0")  # not what a run before has left
        if self._view is not None:
            self._view.start(member, run, history)

    def step(self, member: Member, run: Run) -> None:
        """One optimizer step is done."""
        self._share(run)
        if self._view is not None:
            self._view.step(member, run)
        if due(run, self._every):
            step = step_of(run)
            if self._view is not None:
                self._view.logged(member, step)

    def epoch(self, member: Member, run: Run, epoch: Epoch) -> None:
        """One epoch is done and saved."""
        if self._view is not None:
            self._view.epoch(member, run, epoch)

    def _share(self, run: Run) -> None:
        """Now and then: leave word of this rank's part of loss and D(Θ), or as the first one put the parts together.

        Parts may be of steps that are a little apart.
        """
        count = run.program.peers.count
        if time.monotonic() - self._shared < SHARED * max(1.0, count / MANY):
            return
        self._shared = time.monotonic()
        part = live_part(run)
        if self._heartbeat.rank:
            self._heartbeat.tell("live", f"{part.loss!r} {part.discrepancy!r}")
            return
        told = [part]
        for rank in range(1, count):
            if text := self._heartbeat.told("live", rank):
                told.append(Live(*map(float, text.split())))
        run.live = Live(sum(p.loss for p in told), sum(p.discrepancy for p in told))


class EventView:
    """Writes what happens as events for the launcher, which shows it."""

    def __init__(self, events: word.Events) -> None:
        self._events, self._told = events, 0.0

    def start(self, member: Member, run: Run, history: list[Epoch]) -> None:
        """A run begins, or goes on after the epochs of `history`."""
        self._events.write(
            "start", attempt=word.attempt(), steps=run.steps, epoch=run.epoch, taken=run.taken, kept=run.kept,
            settings=asdict(run.settings), measure=run.measure, valid=len(run.valid[1]) if run.valid else 0,
            history=[e.as_json() for e in history],
        )  # fmt: skip

    def step(self, member: Member, run: Run) -> None:
        """One optimizer step is done; not every one is told."""
        if time.monotonic() - self._told >= OFTEN:
            self._told = time.monotonic()
            self._events.write("step", taken=run.taken, kept=run.kept, live=asdict(run.live) if run.live else None)

    def logged(self, member: Member, step: Step) -> None:
        """One of the steps that are written is done."""
        self._events.write("logged", record=step.as_json())

    def epoch(self, member: Member, run: Run, epoch: Epoch) -> None:
        """One epoch is done and saved."""
        self._events.write("epoch", taken=run.taken, kept=run.kept, record=epoch.as_json())
