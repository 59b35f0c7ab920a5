"""Errors: what went wrong, where, and what to do about it.

A *fault* is one problem. The user's mistakes are collected and reported together; a broken
invariant of a plan (`PlanError`) is a bug of this package or of an edited plan file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file: 1-based line and column; 0 where unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One problem: a stable code, a sentence, where it is, and the fix."""

    code: str
    message: str
    where: Location | None = None
    fix: str = ""

    def __str__(self) -> str:
        place = f" {self.where}:" if self.where else ":"
        fix = f"\n  fix: {self.fix}" if self.fix else ""
        return f"error[{self.code}]{place} {self.message}{fix}"


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning about something that runs: a sentence with the change that helps, and its code ("" in older plans)."""

    message: str
    code: str = ""

    @property
    def label(self) -> str:
        """What stands before the sentence: `warning[W104]`."""
        return f"warning[{self.code}]" if self.code else "warning"

    def __str__(self) -> str:
        return f"{self.label}: {self.message}"


class ReclraError(Exception):
    """Base of every error this package raises on purpose; `faults` holds each problem found."""

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(f) for f in self.faults))


class UserError(ReclraError):
    """Something the user gave us cannot be used; the command line exits with status 2."""


class WiringError(UserError):
    """The wiring file (or dict) is wrong, or does not fit the model (codes W…)."""


class ModelError(UserError):
    """The model cannot be loaded, traced or partitioned (codes M…)."""


class DataError(UserError):
    """The data set cannot be read or does not fit the model (codes D…)."""


class TrainingError(UserError):
    """Training cannot go on, for example a loss that is not finite (codes T…)."""


class PlacementError(UserError):
    """The devices or the placement asked for cannot be used (codes N…)."""


class CostError(UserError):
    """Times cannot be measured, read, or used for this model (codes C…)."""


class RankError(UserError):
    """The processes that run a plan together cannot start, disagree, or lost one of them (codes R…)."""


class PlanError(ReclraError):
    """A plan breaks an invariant or does not belong to the model it is run with (codes P…)."""


def nearest(word: str, names: Sequence[str]) -> str:
    """A 'did you mean …?' clause for `word`, or the first valid names where nothing is close."""
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if not names:
        return ""
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"valid: {shown}"
