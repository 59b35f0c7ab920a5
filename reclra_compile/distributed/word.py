"""Files in which ranks leave word for the launcher of this package, in a folder that it names in the environment.

A line of events per step and epoch, the place of each rank, its process, and the faults of one that fails. Each file is
named after the attempt, as a launcher may start the ranks again.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reclra_compile.errors import Fault, Location

FOLDER = "RECLRA_LAUNCH_FOLDER"
EVENTS = "events.jsonl"
#: what a rank sees where another one has failed: the other one's own word comes first
SECONDARY = ("R104", "R105")


@dataclass(frozen=True)
class Said:
    """The faults of one rank, when it left them (seconds of the wall clock), and where in the code it ended."""

    rank: int
    time: float
    faults: tuple[Fault, ...]
    traceback: str = ""

    @property
    def secondary(self) -> bool:
        """Whether the rank only saw that another one is gone."""
        return all(f.code in SECONDARY for f in self.faults)

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Said:
        """What `str()` of one stands for."""
        found = json.loads(text)
        faults = tuple(Fault(**{**f, "where": Location(**f["where"]) if f["where"] else None})
                       for f in found.pop("faults"))  # fmt: skip
        return cls(**found, faults=faults)


def folder() -> Path | None:
    """The launcher's folder; None where the ranks were started by another launcher, or none."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else None


def attempt() -> int:
    """How often the launcher has started the ranks before."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def begin() -> None:
    """Leave word of this process and put what it prints aside: the launcher's terminal is for one message of all."""
    there = folder()
    if there is None:
        return
    rank = int(os.environ.get("RANK", "0"))
    leave("process", rank, str(os.getpid()))
    with open(there / f"log.{attempt()}.{rank}", "wb") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


def leave(what: str, rank: int, text: str) -> None:
    """Leave `what` of a rank where a launcher of this package wants it; readers never see half of it."""
    there = folder()
    if there is None:
        return
    file = there / f"{what}.{attempt()}.{rank}"
    temporary = file.with_suffix(f"{file.suffix}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)


def left(folder: Path, what: str, attempt: int) -> dict[int, str]:
    """What each rank has left in an attempt, by rank."""
    files = (f for f in folder.glob(f"{what}.{attempt}.*") if f.suffix != ".new")
    return {int(f.suffix[1:]): f.read_text(encoding="utf-8", errors="replace") for f in sorted(files)}


def said(folder: Path, attempt: int) -> list[Said]:
    """The faults of an attempt, the first cause first."""
    found = [Said.read(text) for text in left(folder, "fault", attempt).values()]
    return sorted(found, key=lambda s: (s.secondary, s.time, s.rank))


class Events:
    """Lines of JSON that rank 0 writes and the launcher follows."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", encoding="utf-8")

    def write(self, event: str, **facts: Any) -> None:
        """One event, whole, at once."""
        self._file.write(json.dumps({"event": event, **facts}) + "\n")
        self._file.flush()
