"""What a rank's training looks like from outside: lines for people, events for a launcher, or nothing."""

from __future__ import annotations

import time
from dataclasses import asdict

from reclra_compile.distributed import word
from reclra_compile.distributed.heartbeat import Heartbeat
from reclra_compile.train.checkpoint import checkpoint_of
from reclra_compile.train.job import Member, Watcher
from reclra_compile.train.loop import Epoch, Run

#: seconds between two events of steps
OFTEN = 0.05


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
    """Lets the heart beat at the place of the program that runs, and passes on what happens to the view of rank 0."""

    def __init__(self, heartbeat: Heartbeat, view: Watcher | None) -> None:
        self._heartbeat, self._view = heartbeat, view
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
        if self._view is not None:
            self._view.start(member, run, history)

    def step(self, member: Member, run: Run) -> None:
        """One optimizer step is done."""
        if self._view is not None:
            self._view.step(member, run)

    def epoch(self, member: Member, run: Run, epoch: Epoch) -> None:
        """One epoch is done and saved."""
        if self._view is not None:
            self._view.epoch(member, run, epoch)


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
            self._events.write("step", taken=run.taken, kept=run.kept)

    def epoch(self, member: Member, run: Run, epoch: Epoch) -> None:
        """One epoch is done and saved."""
        self._events.write("epoch", taken=run.taken, kept=run.kept, record=epoch.as_json())
