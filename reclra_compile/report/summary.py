"""What the runs of a report have come to: curves, final numbers and D(Θ) by region, over the seeds of each wiring.

Torch-free.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reclra_compile.ir import Plan
from reclra_compile.report.alike import alike
from reclra_compile.report.runs import Run

#: what of an epoch is drawn, and what it is called
METRICS = ("loss", "train_error", "valid_error", "test_error", "discrepancy", "synapse_norm")


@dataclass(frozen=True)
class Series:
    """A number over epochs: its mean over seeds, the sample standard deviation, and each seed's own."""

    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    each: tuple[tuple[float | None, ...], ...]

    @property
    def last(self) -> tuple[float, float]:
        """Mean and deviation of the last epoch, over the seeds that have it."""
        return self.mean[-1], self.deviation[-1]

    @property
    def count(self) -> tuple[int, ...]:
        """How many seeds have each epoch."""
        return tuple(sum(line[k] is not None for line in self.each) for k in range(len(self.epochs)))


@dataclass(frozen=True)
class Heat:
    """D(Θ) by region (rows, in the model's order) and epoch (columns), the mean over seeds; None where unknown."""

    regions: tuple[str, ...]
    epochs: tuple[int, ...]
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Angle:
    """The angle in degrees between a region's update and backprop's gradient, before and after training, by seed."""

    region: str
    start: tuple[float, ...] = ()
    end: tuple[float, ...] = ()


@dataclass(frozen=True)
class Group:
    """The runs of one wiring with the same model, data and settings; `label` tells it from others of its wiring."""

    wiring: str
    label: str
    runs: tuple[Run, ...]
    series: dict[str, Series]
    heat: Heat | None
    angles: tuple[Angle, ...] = ()

    @property
    def plan(self) -> Plan | None:
        """The plan of its first run that has one."""
        return next((r.plan for r in self.runs if r.plan is not None), None)

    @property
    def seconds(self) -> float:
        """Training time of a run, the mean of those that are as far as any."""
        most = max(len(r.epochs) for r in self.runs)
        return statistics.fmean(float(r.epochs[-1].get("seconds") or 0.0) for r in self.runs if len(r.epochs) == most)

    @property
    def whole(self) -> bool:
        """Whether all its runs have come to their last epoch."""
        return not any(r.unfinished for r in self.runs) and len({r.epochs[-1]["epoch"] for r in self.runs}) == 1


@dataclass(frozen=True)
class Report:
    """All that a page shows; `notes` say what is missing and why."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()
    aligned: str = field(default="")  #: on what the angles were measured, or ""

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for group in self.groups for run in group.runs]

    @property
    def measure(self) -> str:
        """What `…_error` of an epoch is: "error", in percent, or "loss"."""
        return str(next((r.about["measure"] for r in self.runs if "measure" in r.about), "error"))

    @property
    def model(self) -> str:
        """The model's name."""
        named = (r.plan.model if r.plan else r.about.get("model") for r in self.runs)
        return str(next((name for name in named if name), "model"))


def summary(runs: Sequence[Run]) -> Report:
    """The report of some runs, without angles."""
    groups = tuple(_group(label, own) for label, own in alike(runs))
    return Report(groups, tuple(_notes(groups)))


def _group(label: str, runs: tuple[Run, ...]) -> Group:
    found = {name: _series(name, runs) for name in METRICS}
    return Group(runs[0].wiring, label, runs, {name: s for name, s in found.items() if s is not None}, _heat(runs))


def _series(name: str, runs: Sequence[Run]) -> Series | None:
    """A metric over those epochs that some run has; None where none was measured."""
    lines = [{e["epoch"]: _number(e.get(name)) for e in run.epochs} for run in runs]
    epochs = sorted({k for line in lines for k, v in line.items() if v is not None})
    if not epochs:
        return None
    columns = [[v for line in lines if (v := line.get(k)) is not None] for k in epochs]
    return Series(
        tuple(epochs), tuple(statistics.fmean(c) for c in columns),
        tuple(statistics.stdev(c) if len(c) > 1 else 0.0 for c in columns),
        tuple(tuple(line.get(k) for k in epochs) for line in lines),
    )  # fmt: skip


def _heat(runs: Sequence[Run]) -> Heat | None:
    lines = [{e["epoch"]: e["regions"] for e in run.epochs if isinstance(e.get("regions"), dict)} for run in runs]
    epochs = sorted({k for line in lines for k in line})
    named = dict.fromkeys(name for line in lines for regions in line.values() for name in reversed(list(regions)))
    if not named:
        return None
    plan = next((r.plan for r in runs if r.plan is not None), None)
    order = {r.name: k for k, r in enumerate(plan.regions)} if plan else {}
    names = sorted(named, key=lambda name: order.get(name, len(order)))

    def mean(name: str, epoch: int) -> float | None:
        found = [v for line in lines if (v := _number(line.get(epoch, {}).get(name))) is not None]
        return statistics.fmean(found) if found else None

    return Heat(tuple(names), tuple(epochs), tuple(tuple(mean(n, k) for k in epochs) for n in names))


def _number(value: Any) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _notes(groups: Sequence[Group]) -> list[str]:
    runs = [run for group in groups for run in group.runs]
    notes = []
    if old := [r for r in runs if not r.about]:
        what = "This run has" if len(runs) == 1 else f"{len(old)} of {len(runs)} runs have"
        notes.append(f"{what} no run.json, which versions before this one did not write: its settings, environment and "
                     "command are not known.")  # fmt: skip
    if any(group.heat is None for group in groups):
        notes.append("The log of an older version has no D(Θ) by region.")
    notes += [
        f"{g.label}, seed {r.seed}, is not finished: {r.unfinished}." for g in groups for r in g.runs if r.unfinished
    ]
    named = [g.wiring for g in groups]
    notes += [f"The runs of {w} differ in more than their seeds, and are shown apart: "
              f"{', '.join(g.label for g in groups if g.wiring == w)}."
              for w in dict.fromkeys(named) if named.count(w) > 1]  # fmt: skip
    models = {r.plan.fingerprint for r in runs if r.plan is not None}
    if len(models) > 1:
        notes.append("The runs are not of one model: their curves are beside each other all the same.")
    return notes
