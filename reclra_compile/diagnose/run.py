"""A brief training run with probes, through the same job and loop as `reclra-compile train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from reclra_compile.diagnose.facts import Diagnosis, Probe
from reclra_compile.diagnose.measure import Bench, synapse_norms
from reclra_compile.errors import TrainingError
from reclra_compile.ir import Plan, Training
from reclra_compile.train.feed import feed
from reclra_compile.train.job import Job, Member
from reclra_compile.train.loop import Epoch, Run, rate

QUARTERS = 4  #: probes after the first one
STEPS = 200

OnProgress = Callable[[int, int], None]


class _Enough(Exception):
    """The steps are done; training ends in the middle of an epoch."""


class Probes:
    """A watcher of a job that measures at the start and after each quarter of `steps` (None: all epochs)."""

    def __init__(self, steps: int | None, progress: OnProgress) -> None:
        self.steps, self.progress = steps, progress
        self.total, self.done, self.at = 0, 0, frozenset[int]()
        self.found: list[Probe] = []
        self.plan: Plan | None = None
        self.settings = Training()
        self.samples = 0
        self.initial: dict[str, float] = {}

    def start(self, member: Member, run: Run, history: list[Epoch]) -> None:
        """Measure once before the first step."""
        whole = run.steps * run.settings.epochs
        self.total = whole if self.steps is None else min(self.steps, whole)
        self.at = frozenset(round(self.total * k / QUARTERS) for k in range(QUARTERS + 1))
        self.plan, self.settings = run.program.plan, run.settings
        inputs, y = run.train
        drawn = torch.Generator().manual_seed(member.seed)
        index = torch.randperm(len(y), generator=drawn)[: run.settings.batch_size]
        ((_, batch),) = feed(inputs, [index], drawn)
        batch = batch if run.augment is None else run.augment(batch, drawn)
        self.samples = len(index)
        self.bench = Bench(run.program, (batch, y[index]), forward_of(run), run.settings.lr)
        self.initial = synapse_norms(run.program)
        run.program.model.train()
        self._measure(run)

    def step(self, member: Member, run: Run) -> None:
        """Measure where a quarter is done, and end where all are."""
        self.done += 1
        self.progress(self.done, self.total)
        if self.done in self.at:
            self._measure(run)
        if self.done >= self.total:
            raise _Enough

    def epoch(self, member: Member, run: Run, epoch: Epoch) -> None:
        """An epoch's evaluation leaves the model in evaluation mode; what is measured is training."""
        run.program.model.train()

    def _measure(self, run: Run) -> None:
        lr = rate(run.settings, max(0, self.done - 1) / (run.steps * run.settings.epochs)) * run.settings.lr
        self.found.append(self.bench.probe(self.done, lr, self.initial))


def forward_of(run: Run) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """The model's plain forward pass, whose gradient is backprop's also where the program lets states settle."""
    program = run.program

    def forward(inputs: tuple[Tensor, ...]) -> Tensor:
        output = program.output_of(program.model(*inputs)) if program.settles else run._forward(inputs)
        assert output is not None  # one process has it
        return output

    return forward


def diagnose(job: Job, member: Member, steps: int | None, progress: OnProgress = lambda done, total: None) -> Diagnosis:
    """Train `member` for `steps` (None: all epochs) and measure on the way; a loss that is not finite ends it."""
    watch, stopped = Probes(steps, progress), ""
    try:
        job.run(replace(member, folder=None), watch)
    except _Enough:
        stopped = ""
    except TrainingError as error:
        if not watch.found or any(f.code != "T010" for f in error.faults):
            raise
        stopped = "; ".join(f.message.removeprefix(f"{member.label}, seed {member.seed}: ") for f in error.faults)
    assert watch.plan is not None
    return Diagnosis(watch.plan, watch.settings, job.data.name, watch.samples, tuple(watch.found), stopped)
