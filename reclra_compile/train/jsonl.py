"""A log as lines of JSON: a header, a line per epoch, and lines of steps. Torch-free.

Each line is appended whole, so that a reader never waits for the rest of one and a run that is ended at any time leaves
a log that can be read. A run that goes on takes back what it had written after its checkpoint; a last line that was
cut short is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from reclra_compile import __version__
from reclra_compile.errors import Fault, Location, UserError
from reclra_compile.files import FIX, FULL, NO_ROOM, is_stream, write_atomically, write_text
from reclra_compile.finite import finite
from reclra_compile.train.writers import Record

FORMAT = 1
Line = dict[str, Any]


class JsonLines:
    """Writes a log; implements `writers.Writer`.

    `resume` keeps what is in the file (its header has to be of the same runs, or UserError Y005); otherwise it is
    replaced. `header` are facts for the first line. Raises UserError (F001) where the file cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], header: Mapping[str, Any] | None = None, *, resume: bool = False,
        again: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """`again`: facts for a line that says that the log was taken up again. Without `header` the first run's facts
        are in it.
        """
        self.path, self._stream = Path(path), is_stream(path)
        self._file: IO[bytes] | None = None
        self._last: dict[str, tuple[int, int]] = {}  # epoch and step of each run's last lines
        self._header = None if header is None else _header(header)
        if resume and not self._stream and self.path.exists():
            self._take_up(again or {})
        elif self._header is not None:
            write_text(path, _text(self._header))

    def begin(self, run: str, facts: Mapping[str, Any], epoch: int = 0, step: int = 0) -> None:
        """Take back what was written of the run after `epoch` and `step`; a new run with `facts` gets a line of them.
        """
        if self._header is None:
            self._header = _header({"version": __version__, "run": run, **facts})
            write_text(self.path, _text(self._header))
        elif run not in self._last and facts:
            self._append({"kind": "run", "run": run, **facts})
        last = self._last.get(run, (0, 0))
        if last > (epoch, step) and not self._stream:
            self._rewrite(lambda line: line.get("run") != run or not _after(line, epoch, step))
        self._last[run] = min(last[0], epoch), min(last[1], step)

    def step(self, record: Record) -> None:
        """A line of kind `step`."""
        self._append(_line("step", record))
        self._last[record.run] = self._last.get(record.run, (0, 0))[0], record.step

    def epoch(self, record: Record) -> None:
        """A line of kind `epoch`; one that is there already is not written twice."""
        epoch, step = self._last.get(record.run, (0, 0))
        if record.epoch > epoch:
            self._append(_line("epoch", record))
            self._last[record.run] = record.epoch, step

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, line: Line) -> None:
        try:
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
            self._file.write(_text(line).encode())
        except OSError as error:
            fix, where = FULL if error.errno in NO_ROOM else FIX, Location(str(self.path))
            raise UserError(Fault("F001", f"cannot write this file: {error.strerror or error}", where, fix)) from error

    def _rewrite(self, keep: Callable[[Line], bool], more: Line | None = None) -> None:
        """Replace the file by those of its lines that `keep` says, and one more."""
        self.close()

        def write(out: IO[bytes]) -> None:
            for line in lines_of(self.path):
                if keep(line):
                    out.write(_text(line).encode())
            if more is not None:
                out.write(_text(more).encode())

        write_atomically(self.path, write)

    def _take_up(self, again: Mapping[str, Any]) -> None:
        """Go on in the file that is there; raises UserError (Y005) where it is the log of other runs."""
        first = next(lines_of(self.path), {})
        if first.get("kind") != "header" or not _share_runs(first, self._header):
            raise UserError(
                Fault("Y005", "this is not the log of the run that is resumed", Location(str(self.path)),
                      "name the --log of that run, or another file")
            )
        self._header = first
        for line in lines_of(self.path):
            if line.get("kind") in ("epoch", "step"):
                epoch, step = self._last.get(line["run"], (0, 0))
                done = line["epoch"] if line["kind"] == "epoch" else 0
                self._last[line["run"]] = max(epoch, done), max(step, line["step"])
        self._rewrite(lambda line: True, {"kind": "resumed", **again})


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a log that are whole; raises UserError (Y004) where one in between is damaged or none can be read.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    line = json.loads(raw)
                except ValueError:
                    line = None
                if isinstance(line, dict) and raw.endswith(b"\n"):
                    yield line
                elif raw.endswith(b"\n"):
                    raise UserError(
                        Fault("Y004", "this line is not an object of JSON", Location(str(path), number),
                              "remove the line, or the file")
                    )
    except OSError as error:
        raise UserError(
            Fault("Y004", f"cannot read this file: {error.strerror or error}", Location(str(path)),
                  "name a file that you may read")
        ) from error


def _header(facts: Mapping[str, Any]) -> Line:
    return {"kind": "header", "format": FORMAT, **facts}


def _line(kind: str, record: Record) -> Line:
    return {"kind": kind, "run": record.run, **record.about, "epoch": record.epoch, "step": record.step,
            **record.values, "regions": dict(record.regions)}  # fmt: skip


def _share_runs(before: Line, now: Line | None) -> bool:
    """Whether the header of a log is of some of the same runs; those of a name have the same plan."""
    if now is None or "runs" not in now:
        return True
    was, are = ({str(r.get("run")): r.get("fingerprint") for r in each.get("runs", [])} for each in (before, now))
    common = was.keys() & are.keys()
    return bool(common) and all(was[name] == are[name] for name in common)


def _after(line: Line, epoch: int, step: int) -> bool:
    """Whether a line was written after a point of its run."""
    kind = line.get("kind")
    return bool((kind == "epoch" and line["epoch"] > epoch) or (kind == "step" and line["step"] > step))


def _text(line: Line) -> str:
    return json.dumps(finite(line), ensure_ascii=False) + "\n"
