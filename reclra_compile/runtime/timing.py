"""How long each task of a program takes: real steps, with a clock read after each task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from reclra_compile.ir import Task
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.tasks import waits

Clock = Callable[[], float]  #: seconds
SHORT_S, MOST = 0.1, 20  #: shorter steps are repeated in a round up to this time, and so many times at most


@dataclass
class Timing:
    """One program and batch: microseconds of whole steps as they are run, and of each task in steps that are watched.

    The tasks' times add up to the step's: what lies between two tasks belongs to the later one, what frees values to
    the one before, and updates that wait for the end of the step share what is left there by their FLOPs.
    """

    program: Program
    batch: tuple[Any, ...]
    now: Clock
    steps: list[float] = field(default_factory=list)
    tasks: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.wait = waiter(self.batch)
        waiting = [t for t in self.program.plan.tasks if waits(t, self.program._linked)]
        self.waiting = {t.id: t.flops for t in waiting}
        self.repeats = 1

    def warm_up(self, rounds: int) -> None:
        """Take steps that do not count, and find out how many make a round."""
        seconds = min(self._plain() for _ in range(max(1, rounds))) / 1e6  # the first, or a disturbed one, is long
        self.repeats = MOST if seconds * MOST <= SHORT_S else max(1, int(SHORT_S / seconds))
        self._watched()

    def round(self) -> None:
        """Take steps as they are and watched ones in turn, and keep their times."""
        for _ in range(self.repeats):
            self.steps.append(self._plain())
            for name, us in self._watched().items():
                self.tasks[name].append(us)

    def clear(self) -> None:
        """Forget the rounds so far."""
        self.steps.clear()
        self.tasks.clear()

    def step_us(self) -> float:
        """The median step."""
        return median(self.steps)

    def task_us(self) -> dict[str, float]:
        """The median of each task, all in proportion so that they add up to the median step."""
        found = {name: median(times) for name, times in self.tasks.items()}
        whole = sum(found.values())
        return {name: us * self.step_us() / whole for name, us in found.items()} if whole else found

    def _plain(self) -> float:
        self.program.zero_grad()
        self.wait()
        start = self.now()
        self.program.step(*self.batch)
        self.wait()
        return (self.now() - start) * 1e6

    def _watched(self) -> Mapping[str, float]:
        """Microseconds of each task in one step, those of several microbatches together."""
        self.program.zero_grad()
        self.wait()
        spent: dict[str, float] = defaultdict(float)
        mark, latest = -1.0, ""

        def before(task: Task, read: Callable[[str], Any]) -> None:
            nonlocal mark
            if mark < 0:
                mark = self.now()

        def after(task: Task, read: Callable[[str], Any]) -> None:
            nonlocal mark, latest
            self.wait()
            at = self.now()
            latest = latest if task.kind in "XPR" and latest else task.id
            spent[latest] += (at - mark) * 1e6
            mark = at

        self.program.observe(*self.batch, before=before, after=after)
        self.wait()
        rest = (self.now() - mark) * 1e6
        shares = self.waiting if sum(self.waiting.values()) else {latest: 1}
        whole = sum(shares.values())
        for name, share in shares.items():
            spent[name] += rest * share / whole
        return spent


def waiter(batch: Sequence[Any]) -> Callable[[], None]:
    """What waits until the device of a batch has done all its work; nothing on a CPU."""
    device = next((x.device for x in batch if isinstance(x, Tensor)), torch.device("cpu"))
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None
