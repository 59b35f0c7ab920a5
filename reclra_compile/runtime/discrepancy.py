"""D(Θ): the total discrepancy of a step, by region (E2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reclra_compile.ir import Plan
from reclra_compile.runtime.state import StepState


@dataclass(frozen=True)
class Discrepancy:
    """D(Θ) of the last step (E2): the total, and each region's term, output first; floats."""

    total: float
    regions: dict[str, float]

    @classmethod
    def of(cls, plan: Plan, found: Mapping[str, Tensor]) -> Discrepancy:
        """From the terms of regions."""
        terms = {name: float(found[name]) for wave in plan.waves for name in wave if name in found}
        return cls(sum(terms.values()), terms)


def averaged(states: Sequence[StepState]) -> dict[str, Tensor]:
    """Terms of D(Θ) over the batch, from those of its microbatches."""
    names = dict.fromkeys(name for s in states for name in s.discrepancy)
    return {n: torch.stack([s.discrepancy[n] * s.fraction for s in states if n in s.discrepancy]).sum() for n in names}
