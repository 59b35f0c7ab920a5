"""Single steps of a run, within its epochs: what a log keeps of one, and what a view shows meanwhile."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reclra_compile.train.loop import Run


@dataclass(frozen=True)
class Step:
    """What is known after one step: `epoch` is the one it is in, `step` counts those of all epochs, both from 1."""

    epoch: int
    step: int
    loss: float
    discrepancy: float
    lr: float
    seconds: float
    regions: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """The record as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Live:
    """What is shown within an epoch: the mean loss of its steps so far, and D(Θ) of the last one."""

    loss: float
    discrepancy: float


def due(run: Run, every: int) -> bool:
    """Whether the step that is done is one of every so many (0: none are)."""
    return every > 0 and run.taken % every == 0


def step_of(run: Run) -> Step:
    """The step that is done; collective, as each rank has its part of the loss."""
    (loss,) = run.program.peers.total([run.last])
    regions = run.discrepancies()
    rate = float(run.optimizer.param_groups[0]["lr"])
    return Step(run.epoch + 1, run.taken, loss, sum(regions.values()), rate, run.elapsed, regions)


def live_part(run: Run) -> Live:
    """This process's part of what is shown; not collective."""
    return Live(run.losses / max(run.done, 1), sum(run.discrepancies(alone=True).values()))
