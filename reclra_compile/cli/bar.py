"""A bar on standard error for work that takes a while."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reclra_compile.cli.report import console


class DoneBar:
    """How many `unit` of `title` are done, where standard error is a terminal and nobody asked for quiet."""

    def __init__(self, title: str, unit: str, quiet: bool) -> None:
        out = console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
                   TimeRemainingColumn())  # fmt: skip
        self.bars = Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal)
        self.bar = self.bars.add_task(title, total=None)

    def __enter__(self) -> DoneBar:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def step(self, done: int, total: int) -> None:
        """`done` of `total` are done."""
        self.bars.update(self.bar, completed=done, total=total)
