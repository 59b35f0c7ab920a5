"""How far training is, on a terminal: a bar of the run, and a line with loss, errors, D(Θ) and what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

#: seconds between two looks at what has to be computed to be shown
OFTEN = 0.1
BETWEEN = "  "

Clock = Callable[[], float]


@dataclass
class Pace:
    """How fast steps are taken, and what is left; `taken` is where this process began. Times in seconds."""

    steps: int
    total: int
    taken: int
    clock: Clock = time.monotonic
    _start: tuple[float, int] = field(init=False)
    _epoch: tuple[float, int] = field(init=False)

    def __post_init__(self) -> None:
        self._start = self._epoch = self.clock(), self.taken

    def step(self, taken: int) -> None:
        """So many steps of the run are done."""
        self.taken = taken

    def epoch(self) -> None:
        """An epoch is done and evaluated."""
        self._epoch = self.clock(), self.taken

    @property
    def per_step(self) -> float | None:
        """Seconds of a step in this epoch, without evaluation."""
        at, before = self._epoch
        return (self.clock() - at) / (self.taken - before) if self.taken > before else None

    def epoch_left(self, within: int) -> float | None:
        """What is left of an epoch of which `within` steps are done; None before the first of them here."""
        return None if self.per_step is None else self.per_step * (self.steps - within)

    @property
    def left(self) -> float | None:
        """What is left of the run, evaluation included; None before the first step here."""
        at, before = self._start
        return (self.clock() - at) / (self.taken - before) * (self.total - self.taken) if self.taken > before else None

    @property
    def whole(self) -> float | None:
        """What such a run takes from its first step on."""
        at, before = self._start
        return (self.clock() - at) / (self.taken - before) * self.total if self.taken > before else None


def clock_text(seconds: float | None) -> str:
    """0:04, 12:30, 1:02:03; a dash where it is not known."""
    if seconds is None:
        return "–:––"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def status_line(parts: Iterable[tuple[str, int]], room: int) -> str:
    """Parts side by side; where there is no room for all, those of the highest number are left out first."""
    kept = list(parts)

    def long() -> int:
        return sum(cell_len(text) for text, _ in kept) + len(BETWEEN) * (len(kept) - 1)

    while len(kept) > 1 and long() > room:
        kept.remove(max(kept, key=lambda part: part[1]))
    return BETWEEN.join(text for text, _ in kept)


class RunProgress(Progress):
    """The bar of the run that is trained, and under it a line of numbers; gone when training ends."""

    def __init__(self, out: Console, disable: bool) -> None:
        self.status = ""
        super().__init__(
            TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("steps"),
            TextColumn("{task.fields[left]}"), console=out, disable=disable, transient=True, expand=True,
        )  # fmt: skip
        self.bar: TaskID | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, and what is known."""
        yield from super().get_renderables()
        if self.status:
            yield Text(self.status, style="dim", no_wrap=True, overflow="ellipsis")

    def begin(self, name: str, total: int, taken: int) -> None:
        """A run's bar in place of the one before."""
        if self.bar is not None:
            self.remove_task(self.bar)
        self.status = ""
        self.bar = self.add_task(escape(name), total=total, completed=taken, left="")

    def show(self, taken: int, left: str, parts: Iterable[tuple[str, int]]) -> None:
        """So many steps are done, and this is known."""
        self.status = status_line(parts, self.console.width - 1)
        if self.bar is not None:
            self.update(self.bar, completed=taken, left=left)
