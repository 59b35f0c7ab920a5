"""Data-parallel backprop: every device holds the whole model and a share of the batch, and gradients are summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reclra_compile.simulate.engine import run
from reclra_compile.simulate.pattern import Builder
from reclra_compile.simulate.stages import Link, Stage


@dataclass(frozen=True, slots=True)
class Replicas:
    """A step of data-parallel backprop; all devices do the same."""

    step_us: float
    busy_us: float
    peak_bytes: float


def data_parallel(
    stages: Sequence[Stage], devices: int, microbatches: int, link: Link | None = None
) -> Replicas:
    """`microbatches` shared out among `devices`; the stages' gradients go round a ring while the rest is computed.

    A ring all-reduce of b bytes among P devices sends 2 (P − 1) ÷ P · b from each and takes 2 (P − 1) hops. A share of
    less than one microbatch takes less time and memory in proportion.
    """
    link = link or Link()
    share = microbatches / devices
    rounds = max(1, round(share))
    scale = share / rounds
    build = Builder()
    before = (rounds - 1) * scale * sum(s.forward_us + s.both_us for s in stages)
    nodes = [build.node(0, before + scale * sum(s.forward_us for s in stages), name="forward")]
    for k in reversed(range(len(stages))):
        nodes.append(build.node(0, scale * stages[k].both_us, name=f"B{k}"))
        sent = 2 * (devices - 1) / devices * stages[k].gradient_bytes
        if devices > 1 and sent:
            ring = build.node(1, link.occupied_us(sent) + 2 * (devices - 1) * link.latency_us, name=f"sum {k}")
            build.edge(nodes[-1], ring)
    pattern = build.pattern(2)
    kept = sum(s.static_bytes + scale * s.activation_bytes for s in stages)
    return Replicas(run(pattern, 1).makespan_us, float(pattern.work()[0]), kept)
