"""Angles between a wiring's updates and backprop's, measured with the weights of a run before and after training.

The model's file is run for it, as `train` does. Nothing is trained, and the run's folder is only read.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from reclra_compile.diagnose.gather import gathered
from reclra_compile.diagnose.measure import Bench
from reclra_compile.diagnose.run import forward_of
from reclra_compile.errors import Fault, ReclraError
from reclra_compile.report.runs import Run as Folder
from reclra_compile.report.summary import Angle, Report
from reclra_compile.train.checkpoint import checkpoint_of, load_weights
from reclra_compile.train.feed import feed
from reclra_compile.train.job import Job, Member
from reclra_compile.train.loop import Epoch, Run

BATCHES = 4
#: of several seeds of a wiring as many are measured
SEEDS = 3

#: the job that a run was a part of, and itself with its plan
Prepare = Callable[[Folder], tuple[Job, Member]]
Angles = dict[str, list[float]]


class _Done(Exception):
    """All is measured, and nothing is to be trained."""


class Measure:
    """A job's watcher that measures where a run begins, before and after its checkpoint's weights are put in."""

    def __init__(self, folder: Folder, batches: int) -> None:
        self.folder, self.batches = folder, batches
        self.start_angles: Angles = {}
        self.end_angles: Angles = {}
        self.samples = 0

    def start(self, member: Member, run: Run, history: list[Epoch]) -> None:
        """Measure, and end the job."""
        self.start_angles = self._angles(run, member.seed)
        load_weights(checkpoint_of(self.folder.folder), run)
        self.end_angles = self._angles(run, member.seed)
        raise _Done

    def step(self, member: Member, run: Run) -> None:
        """There is none."""

    def epoch(self, member: Member, run: Run, epoch: Epoch) -> None:
        """There is none."""

    def _angles(self, run: Run, seed: int) -> Angles:
        run.program.model.train()
        inputs, y = run.train
        drawn = torch.Generator().manual_seed(seed)
        size = run.settings.batch_size
        chosen = torch.randperm(len(y), generator=drawn)[: size * self.batches]
        order = [chosen[k : k + size] for k in range(0, len(chosen), size)]
        found: Angles = {}
        self.samples = 0
        for index, batch in feed(inputs, order, drawn):
            batch = batch if run.augment is None else run.augment(batch, drawn)
            self.samples += len(y[index])
            probe = Bench(run.program, (batch, y[index]), forward_of(run), run.settings.lr).probe(0, 0.0, {})
            for region in probe.regions:
                if region.angle is not None:
                    found.setdefault(region.name, []).append(region.angle)
        return found


@dataclass(frozen=True)
class Missing:
    """A run without angles, and why."""

    run: str
    fault: Fault


def aligned(report: Report, prepare: Prepare, batches: int = BATCHES) -> tuple[Report, list[Missing]]:
    """The report with angles, and the runs that could not be loaded as they were."""
    groups, said, missing = [], "", []
    for group in report.groups:
        found: list[Measure] = []
        for folder in [r for r in group.runs if r.about and r.plan is not None][:SEEDS]:
            measure = Measure(folder, batches)
            try:
                job, member = prepare(folder)
                assert member.plan is not None
                with contextlib.suppress(_Done):
                    job.run(replace(member, wiring=None, plan=gathered(member.plan), folder=None), measure)
            except ReclraError as error:
                missing.append(Missing(f"{group.label}, seed {folder.seed}", error.faults[0]))
            else:
                found.append(measure)
        said = said or (f"{found[0].samples} training samples in {batches} batches" if found else "")
        regions = [r.name for r in group.plan.regions] if group.plan else []
        groups.append(replace(group, angles=tuple(a for name in regions if (a := _angle(name, found)).end)))
    return replace(report, groups=tuple(groups), aligned=said), missing


def _angle(region: str, found: list[Measure]) -> Angle:
    start = tuple(statistics.fmean(m.start_angles[region]) for m in found if region in m.start_angles)
    end = tuple(statistics.fmean(m.end_angles[region]) for m in found if region in m.end_angles)
    return Angle(region, start, end)
