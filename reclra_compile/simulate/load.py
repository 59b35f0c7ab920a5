"""A plan's model as an even load: what one microbatch costs in all, to be cut into any number of equal parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reclra_compile.ir import Plan, Task
from reclra_compile.placement.memory import STATE, weight_bytes
from reclra_compile.placement.times import task_us
from reclra_compile.simulate.costs import Prices, Time
from reclra_compile.simulate.retarget import rebatched
from reclra_compile.simulate.stages import Link, Stage
from reclra_compile.spec.graph import FLOAT_BYTES


@dataclass(frozen=True, slots=True)
class Load:
    """One microbatch of a model on one device; µs and bytes for the whole model.

    `layers` regions learn. `apply_us` and `learn_us` are one region's displacement from the output and the update of
    its synapses (`synapse_bytes` of it), `relayed_…` the same from a relay of `relay_width` neurons instead of
    `classes`, `target_us` its error neurons. `width_bytes` is what goes from stage to stage, `error_bytes` the output's
    error, `relay_bytes` a relay's. `copies` of weights and synapses stay: value, gradient, optimizer state.
    """

    forward_us: float
    input_us: float
    weight_us: float
    both_us: float
    target_us: float
    apply_us: float
    learn_us: float
    relayed_apply_us: float
    relayed_learn_us: float
    layers: int
    classes: float
    relay_width: float
    width_bytes: float
    error_bytes: float
    relay_bytes: float
    activation_bytes: float
    weight_bytes: float
    synapse_bytes: float
    relayed_synapse_bytes: float
    copies: int
    link: Link

    def stage(self, parts: int) -> Stage:
        """Backprop's work of one of `parts` equal parts."""
        return Stage(
            self.forward_us / parts, self.input_us / parts, self.weight_us / parts, self.both_us / parts,
            self.activation_bytes / parts + self.width_bytes * (parts > 1), self.width_bytes * (parts > 1),
            self.weight_bytes * self.copies / parts, self.weight_bytes / parts,
        )  # fmt: skip


def load_of(
    plan: Plan, batch: int, microbatches: int, classes: float | None = None, time: Time = task_us
) -> Load:
    """The load of `batch` samples in `microbatches` on the plan's first device.

    `classes` replaces the model's number of outputs where errors are concerned; synapses grow in proportion. Pathways
    from the output cost what the plan's do on average; where it has none, dense ones.
    """
    prices = Prices(plan, time)
    plan, device = rebatched(plan, batch), plan.devices[0]
    each = [prices.of(r, device, microbatches) for r in plan.regions]
    by_name = {r.name: r for r in plan.regions}
    root = by_name[plan.waves[0][0]]
    learning = [r for r in plan.regions if r.learns and r is not root]
    width = sum(r.size for r in learning) / max(1, len(learning)) if learning else root.size
    own = [p for p in plan.pathways if p.source == root.name and not p.edge and p.synapses]
    synapses = sum(p.synapses for p in own) / len(own) if own else root.size * width
    flops = sum(p.flops for p in own) / len(own) if own else 2.0 * batch * root.size * width
    update = sum(p.update_flops for p in own) / len(own) if own else flops
    wanted = classes or root.size
    relays = [by_name[p.source].size for p in plan.pathways if p.source != root.name and not p.edge]
    relay_width = sum(relays) / len(relays) if relays else min((r.size for r in learning), default=root.size)

    def task(kind: str, flops: float, bytes_: float) -> float:
        return time(Task(kind, "", (), flops=round(flops), bytes=round(bytes_)), device, microbatches)

    def pathway(width_of_source: float) -> tuple[float, float, float]:
        """Applying it, learning, bytes of its synapses."""
        ratio = width_of_source / root.size
        ends = FLOAT_BYTES * batch * (width_of_source + width)
        stored = FLOAT_BYTES * synapses * ratio
        learn = task("V", update * ratio, ends + 2 * stored) if update else 0.0
        return task("D", flops * ratio, ends + stored), learn, stored

    apply_us, learn_us, stored = pathway(wanted)
    relayed_apply_us, relayed_learn_us, relayed = pathway(relay_width)
    sample = FLOAT_BYTES * batch / microbatches
    kept = sum(r.saved_bytes + r.z_bytes * (1 + r.tail) + sum(r.output_bytes or (r.z_bytes,)) for r in plan.regions)
    return Load(
        forward_us=_sum(p.forward_us for p in each), input_us=_sum(p.input_us for p in each),
        weight_us=_sum(p.weight_us for p in each), both_us=_sum(p.both_us for p in each),
        target_us=task("T", 0, 4 * FLOAT_BYTES * batch * width),
        apply_us=apply_us, learn_us=learn_us, relayed_apply_us=relayed_apply_us, relayed_learn_us=relayed_learn_us,
        layers=len(learning) + 1, classes=wanted, relay_width=relay_width, width_bytes=sample * width,
        error_bytes=sample * wanted, relay_bytes=sample * relay_width, activation_bytes=kept / microbatches,
        weight_bytes=_sum(weight_bytes(r) for r in plan.regions), synapse_bytes=stored, relayed_synapse_bytes=relayed,
        copies=2 + STATE.get(plan.training.optimizer, 2), link=Link(device.link_bytes_per_s, device.link_latency_us),
    )  # fmt: skip


def _sum(values: Iterable[float]) -> float:
    return float(sum(values))
