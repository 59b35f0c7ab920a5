"""Tables that fit the screen: where it is narrow, long names break at their dots, and nothing else breaks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

Cell = str | Text
Row = Sequence[Cell]
NAME, TEXT, NUMBER = "name", "text", "number"
GAP = 3  #: blanks between columns
SHORTEST = 12


def table(
    title: str, columns: Sequence[tuple[str, str]], rows: Sequence[Row], total: Row | None, room: int | None
) -> Table:
    """A table of cells under (title, kind) columns; names break so that it is no wider than `room`."""
    made = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title=escape(title), title_justify="left",
        title_style="bold", header_style="dim",
    )  # fmt: skip
    for name, kind in columns:
        made.add_column(escape(name), justify="right" if kind == NUMBER else "left", no_wrap=True, overflow="fold")
    share = None if room is None else _share(columns, rows, room)
    for row in rows:
        made.add_row(*(_cell(c, kind, share) for c, (_, kind) in zip(row, columns, strict=True)))
    if total is not None:
        made.add_section()
        made.add_row(*(_cell(c, TEXT, None) for c in total))
    return made


def _cell(cell: Cell, kind: str, share: int | None) -> Text:
    if isinstance(cell, Text):
        return cell
    return Text(fold(cell, share) if kind == NAME and share is not None else cell)


def _share(columns: Sequence[tuple[str, str]], rows: Sequence[Row], room: int) -> int:
    """The width that each column of names may have."""
    names = [k for k, (_, kind) in enumerate(columns) if kind == NAME]
    fixed = sum(
        max([len(title), *(len(row[k]) for row in rows)]) for k, (title, kind) in enumerate(columns) if kind != NAME
    )
    return max(SHORTEST, (room - fixed - GAP * (len(columns) - 1)) // len(names))


def fold(name: str, width: int) -> str:
    """A name in lines of at most `width`, broken after dots and underscores where it can be."""
    lines = [""]
    for part in re.findall(r"[^._/]*[._/]*", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
        while len(lines[-1]) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return "\n".join(lines)
