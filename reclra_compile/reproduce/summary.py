"""From results to the lines of a table: ours beside the paper's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reclra_compile.reproduce.schema import Numbers, Row

Record = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of some values; the deviation of one value is not known."""

    values: tuple[float, ...] = ()

    @property
    def mean(self) -> float | None:
        """The mean, or None of no values."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """The sample standard deviation, or None of fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if self.mean is None:
            return "–"
        return f"{self.mean:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}")

    def as_json(self) -> dict[str, Any]:
        """{"mean", "std", "each"}."""
        return {"mean": self.mean, "std": self.std, "each": list(self.values)}


@dataclass(frozen=True)
class Line:
    """One line of the table: a row on a data set with the runs that are finished, and why others are not.

    `column` is the error that is compared with the paper's: "test" or "valid".
    """

    row: Row
    records: tuple[Record, ...]
    wanted: int
    problems: tuple[str, ...] = ()
    column: str = field(default="test")

    @property
    def train(self) -> Spread:
        """Training error in percent."""
        return self._spread("train_error")

    @property
    def valid(self) -> Spread:
        """Validation error in percent."""
        return self._spread("valid_error")

    @property
    def test(self) -> Spread:
        """Test error in percent."""
        return self._spread("test_error")

    @property
    def ours(self) -> Spread:
        """What is compared with the paper."""
        return self.valid if self.column == "valid" else self.test

    @property
    def theirs(self) -> float | None:
        """The paper's number for it."""
        paper: Numbers = self.row.paper
        return paper.valid if self.column == "valid" else paper.test

    @property
    def gap(self) -> float | None:
        """Ours less the paper's, in points."""
        mean, theirs = self.ours.mean, self.theirs
        return None if mean is None or theirs is None else mean - theirs

    @property
    def epochs(self) -> float | None:
        """Epochs of a run."""
        return max((r["epochs"] for r in self.records), default=None)

    @property
    def seconds(self) -> float | None:
        """Mean training time of a run."""
        return statistics.fmean(r["seconds"] for r in self.records) if self.records else None

    @property
    def verdict(self) -> str:
        """How ours compares, in words."""
        if not self.records:
            return self.problems[0] if self.problems else "not run"
        said = verdict(self.gap)
        missing = self.wanted - len(self.records)
        return said + (f"; {missing} of {self.wanted} seeds missing" if missing > 0 else "")

    def _spread(self, key: str) -> Spread:
        return Spread(tuple(float(r[key]) for r in self.records if r[key] is not None))

    def as_json(self) -> dict[str, Any]:
        """The line as data."""
        return {
            "row": self.row.row, "data": self.row.data, "seeds": [r["case"]["seed"] for r in self.records],
            "test_error": self.test.as_json(), "valid_error": self.valid.as_json(), "train_error": self.train.as_json(),
            "paper": self.row.paper.model_dump(exclude_none=True), "compared": self.column, "gap": self.gap,
            "epochs": self.epochs, "seconds": self.seconds, "verdict": self.verdict, "problems": list(self.problems),
            "settings": self.records[0]["settings"] if self.records else None,
            "images": self.records[0]["images"] if self.records else None, "found": self.row.found,
            "note": self.row.note,
        }  # fmt: skip


def verdict(gap: float | None) -> str:
    """At or below the paper's error, within a point of it, or short of it."""
    if gap is None:
        return "not in the paper"
    if round(gap, 2) <= 0:
        return "at or below"
    return f"within 1 point (+{gap:.2f})" if round(gap, 2) <= 1 else f"short by {gap:.2f}"


def tally(lines: Sequence[Line]) -> str:
    """How many lines are where, in a sentence; a line without all of its seeds is in neither place."""
    whole = [line for line in lines if len(line.records) >= line.wanted]
    gaps = [line.gap for line in whole if line.gap is not None]
    below, near = sum(round(g, 2) <= 0 for g in gaps), sum(0 < round(g, 2) <= 1 for g in gaps)
    short = len(gaps) - below - near
    failed = sum(not line.records for line in lines)
    part = len(lines) - len(whole) - sum(not line.records and line.wanted > 0 for line in lines)
    words = [f"{below} of {len(gaps)} rows at or below the paper's error", f"{near} within 1 point", f"{short} short"]
    return ", ".join(words + [f"{part} incomplete"] * (part > 0) + [f"{failed} without a result"] * (failed > 0))


def grouped(
    rows: Sequence[Row], records: Mapping[tuple[str, str], Sequence[Record]],
    problems: Mapping[tuple[str, str], Sequence[str]], wanted: Mapping[tuple[str, str], int],
) -> list[Line]:  # fmt: skip
    """The lines of some rows, in the order of the table."""
    lines = []
    for row in rows:
        key = row.row, row.data
        column = "valid" if row.paper.valid is not None and row.paper.test is None else "test"
        found = tuple(sorted(records.get(key, ()), key=lambda r: int(r["case"]["seed"])))
        lines.append(Line(row, found, wanted.get(key, 0), tuple(dict.fromkeys(problems.get(key, ()))), column))
    return lines
