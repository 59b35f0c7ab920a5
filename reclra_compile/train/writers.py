"""Where numbers of training go: a protocol that log files implement, and `Log`, which a loop of one's own calls.

    with Log(program, JsonLines("run.jsonl"), TensorBoard("board"), optimizer=optimizer) as log:
        for x, y in batches:
            loss = program.step(x, y)
            optimizer.step()
            log.step(loss, samples=len(x))
        log.epoch(test_error=measured())
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from reclra_compile.runtime.program import Program

Values = Mapping[str, "float | None"]


@dataclass(frozen=True)
class Record:
    """Numbers of one step or one epoch of a run, by name; None where one is not measured.

    `step` counts all optimizer steps so far and `epoch` those that are done, or for a step the one it is in, from 1;
    `regions` are each region's term of D(Θ), output first; `about` says more of the run to whom reads the line alone.
    """

    run: str
    epoch: int
    step: int
    values: Values
    regions: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


class Writer(Protocol):
    """What a log can do; several runs may follow each other in one."""

    def begin(self, run: str, facts: Mapping[str, Any], epoch: int = 0, step: int = 0) -> None:
        """A run begins, or goes on after `epoch` epochs and `step` steps: what was written of later ones is void."""

    def step(self, record: Record) -> None:
        """One optimizer step is done."""

    def epoch(self, record: Record) -> None:
        """One epoch is done."""

    def close(self) -> None:
        """Nothing more comes."""


class Log:
    """Tells writers what a loop of one's own does: D(Θ), learning rate and speed are found, the rest is told.

    `every` so many steps are written; epochs always. As a context manager it closes its writers.
    """

    def __init__(
        self, program: Program, *writers: Writer, optimizer: Optimizer | None = None, run: str = "run", every: int = 1,
        facts: Mapping[str, Any] | None = None, epoch: int = 0, step: int = 0,
    ) -> None:  # fmt: skip
        """`epoch` and `step`: how far a run is that goes on; `facts`: what to note of it beside its plan."""
        self.program, self.writers, self.optimizer, self.run, self.every = program, writers, optimizer, run, every
        self.epochs, self.steps = epoch, step
        self._losses = self._samples = self._part = 0.0
        self._count = 0
        self._began = self._last = time.perf_counter()
        plan = program.plan
        known = {"model": plan.model, "wiring": plan.name, "fingerprint": plan.fingerprint}
        for writer in writers:
            writer.begin(run, {**known, **(facts or {})}, epoch, step)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def step(self, loss: float | Tensor, *, samples: int | None = None, **values: float | None) -> None:
        """After `program.step` and `optimizer.step`: its loss, the samples of its batch, and what else is known."""
        self.steps += 1
        self._count += 1
        self._losses += float(loss)
        self._samples += samples or 0
        self._part += samples or 0
        if self.steps % self.every:
            return
        now = time.perf_counter()
        speed = self._part / max(now - self._last, 1e-9) if samples else None
        self._last, self._part = now, 0.0
        regions = self.program.discrepancy.regions
        known: dict[str, float | None] = {"loss": float(loss), **self._now(regions, speed), **values}
        for writer in self.writers:
            writer.step(Record(self.run, self.epochs + 1, self.steps, known, regions))

    def epoch(self, **values: float | None) -> None:
        """After an epoch: errors and whatever else is known; its mean loss and speed are those of its steps."""
        self.epochs += 1
        seconds = time.perf_counter() - self._began
        speed = self._samples / max(seconds, 1e-9) if self._samples else None
        regions = self.program.discrepancy.regions
        loss = self._losses / self._count if self._count else None
        known: dict[str, float | None] = {"loss": loss, **self._now(regions, speed), "seconds": seconds, **values}
        for writer in self.writers:
            writer.epoch(Record(self.run, self.epochs, self.steps, known, regions))
        self._losses, self._samples, self._count = 0.0, 0.0, 0
        self._began = time.perf_counter()

    def close(self) -> None:
        """Close all writers."""
        for writer in self.writers:
            writer.close()

    def _now(self, regions: Mapping[str, float], speed: float | None) -> dict[str, float | None]:
        rate = None if self.optimizer is None else float(self.optimizer.param_groups[0]["lr"])
        return {"discrepancy": sum(regions.values()), "lr": rate, "samples_per_s": speed}
