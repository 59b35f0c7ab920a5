"""The explanation of each code, read from the pages beside this file.

A page is named after its letter. It has a title, a line about the group, `Page:` with the place in docs/ where the
codes are listed, and for each code

    ## W003: what the table in docs/ says of it

    The cause.

    ```text
    an example
    ```

    Fix: what to do.

    See: a page of docs/ that says more (left out: that of the group)
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reclra_compile.errors import Fault, UserError, nearest

FOLDER = Path(__file__).parent
ORDER = "WLMAXDTNPSCRFVYGI"  #: of the groups: from the wiring to the run; others come last
_ENTRY = re.compile(r"^## ([A-Z]\d{3}): (.*)$", re.MULTILINE)
_EXAMPLE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """One code: its meaning in a line, the cause, an example ("" where none is needed), the fix, and a docs page."""

    code: str
    title: str
    cause: str
    example: str
    fix: str
    page: str


@dataclass(frozen=True, slots=True)
class Group:
    """The codes of one letter."""

    letter: str
    title: str
    about: str
    entries: tuple[Entry, ...]


@functools.cache
def groups() -> tuple[Group, ...]:
    """All groups, in the order of `ORDER`."""
    found = [parse(file.read_text(encoding="utf-8")) for file in FOLDER.glob("[A-Z].md")]
    return tuple(sorted(found, key=lambda g: (f"{ORDER}{g.letter}".index(g.letter), g.letter)))


def parse(text: str) -> Group:
    """The group that a page describes; ValueError where an entry has no cause or no fix."""
    head, *parts = _ENTRY.split(text)
    title, _, rest = head.partition("\n")
    letter, _, name = title.removeprefix("# ").partition(": ")
    page = re.search(r"^Page: (\S+)$", rest, re.MULTILINE)
    if page is None:
        raise ValueError(f"page {letter} names no `Page:`")
    about = _one_line(rest[: page.start()])
    entries = [_entry(parts[k], parts[k + 1], parts[k + 2], page[1]) for k in range(0, len(parts), 3)]
    return Group(letter, name, about, tuple(sorted(entries, key=lambda e: e.code)))


def _entry(code: str, title: str, body: str, page: str) -> Entry:
    example = _EXAMPLE.search(body)
    plain = _EXAMPLE.sub("", body)
    cause, _, after = plain.partition("\nFix: ")
    fix, _, see = after.partition("\nSee: ")
    if not cause.strip() or not fix.strip():
        raise ValueError(f"{code} has no cause or no `Fix:`")
    shown = example[1].rstrip() if example else ""
    return Entry(code, title, _one_line(cause), shown, _one_line(fix), see.strip() or page)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def explained(words: Iterable[str]) -> list[Entry]:
    """The entries that `words` ask for: codes in upper or lower case, how some begin, or the letter of a group.

    Raises UserError (I002) with the nearest code for each that does not exist.
    """
    known = {e.code: e for g in groups() for e in g.entries}
    letters = {g.letter: g for g in groups()}
    found: list[Entry] = []
    faults: list[Fault] = []
    for word in words:
        code = re.sub(r"^(?:ERROR|WARNING)?\[?(\w+)\]?:?$", r"\1", word.strip().upper())
        if code in known:
            found.append(known[code])
        elif code in letters:
            found += letters[code].entries
        elif re.fullmatch(r"[A-Z]\d{1,2}", code) and (begun := [e for c, e in known.items() if c.startswith(code)]):
            found += begun
        else:
            near = [*(c for c in known if c[0] == code[:1]), *letters] if code[:1] in letters else [*letters]
            fix = f"{nearest(code, near)}; `reclra-compile explain` lists all codes"
            faults.append(Fault("I002", f"there is no code '{word}'", fix=fix))
    if faults:
        raise UserError(faults)
    return list(dict.fromkeys(found))
