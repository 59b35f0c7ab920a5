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


def rounds_of(devices: int, microbatches: int) -> int:
    """How many parts each device's share of the batch is cut into: none is larger than a microbatch."""
    return -(-microbatches // devices)


def data_parallel(stages: Sequence[Stage], devices: int, rounds: int, link: Link | None = None) -> Replicas:
    """`rounds` parts of the batch on each of `devices`; of the last one, the stages' gradients go round a ring while
    the rest is computed.

    `stages` cost what one such part costs. A ring all-reduce of b bytes among P devices sends 2 (P − 1) ÷ P · b from
    each and takes 2 (P − 1) hops.
    """
    link = link or Link()
    build = Builder()
    before = (rounds - 1) * sum(s.forward_us + s.both_us for s in stages)
    nodes = [build.node(0, before + sum(s.forward_us for s in stages), name="forward")]
    for k in reversed(range(len(stages))):
        nodes.append(build.node(0, stages[k].both_us, name=f"B{k}"))
        sent = 2 * (devices - 1) / devices * stages[k].gradient_bytes
        if devices > 1 and sent:
            ring = build.node(1, link.occupied_us(sent) + 2 * (devices - 1) * link.latency_us, name=f"sum {k}")
            build.edge(nodes[-1], ring)
    pattern = build.pattern(2)
    kept = sum(s.static_bytes + s.activation_bytes for s in stages)
    return Replicas(run(pattern, 1).makespan_us, float(pattern.work()[0]), kept)
