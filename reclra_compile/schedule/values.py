"""How large the values of a plan are, and what each task moves: bytes, for the whole batch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from reclra_compile.ir import Pathway, Region, Target, Task
from reclra_compile.schedule.lower import activity, whole_regions
from reclra_compile.spec.graph import FLOAT_BYTES

_ELSEWHERE = re.compile(r"(?P<value>.*)(?P<mark>[|>])\d+")
_OF_PATHWAYS = ("d.", "g.", "r.")  #: values whose names have an arrow in them, which a number may follow


def value_bytes(regions: Iterable[Region], pathways: Iterable[Pathway], output: str) -> dict[str, int]:
    """Bytes of each value that a task writes, gradients left out; copies and messages are as large as their value.

    `h.R` is the pre-activation and what autograd keeps beside it for the weight update.
    """
    by_name = {r.name: r for r in regions}
    sizes = {"loss": FLOAT_BYTES}
    for r in by_name.values():
        sizes.update(dict.fromkeys(r.outputs, r.z_bytes))  # where outputs were not measured
        sizes.update(zip(r.outputs, r.output_bytes, strict=False))
        sizes.setdefault(activity(r), r.z_bytes)
        sizes[f"h.{r.name}"] = r.z_bytes + r.saved_bytes
        for letter in "esn":
            sizes[f"{letter}.{r.name}"] = r.z_bytes
    for p in pathways:
        target, source = by_name[p.target], by_name[p.source]
        sizes[f"d.{p.name}"] = sum(target.output_bytes) if p.edge else target.z_bytes
        sizes[f"r.{p.name}"] = target.z_bytes + source.z_bytes
    everything = sum(sum(r.output_bytes) for r in by_name.values())
    sizes |= {"s.values": everything, "n.values": 2 * everything}
    sizes["d.loss"] = next((sum(r.output_bytes) for r in by_name.values() if output in r.outputs), 0)
    return sizes


def base(value: str) -> str:
    """The value that a copy `V|2` or a message `V>2` is of; the arrow in a pathway's name, `d.4->2`, is neither."""
    found = _ELSEWHERE.fullmatch(value)
    if not found:
        return value
    rest = found["value"]
    arrow = found["mark"] == ">" and rest.endswith("-") and value.startswith(_OF_PATHWAYS) and "->" not in rest
    return value if arrow else rest


def with_traffic(
    tasks: Iterable[Task], regions: Iterable[Region], targets: Sequence[Target], pathways: Sequence[Pathway]
) -> tuple[Task, ...]:
    """`tasks` with the bytes that each reads and writes: measured for regions, counted by operand elsewhere.

    Where errors only pass a region on the model's own edges, task T hands them on and moves nothing.
    """
    by_region, by_pathway = {r.name: r for r in regions}, {p.name: p for p in pathways}
    passing = {f"T {name}" for name in whole_regions(tuple(targets), tuple(pathways))}
    return tuple(
        replace(t, bytes=0 if t.id in passing else _traffic(t, by_region, by_pathway)) for t in tasks
    )


def _traffic(t: Task, regions: Mapping[str, Region], pathways: Mapping[str, Pathway]) -> int:
    if t.kind == "F":
        return regions[t.subject].forward_bytes
    if t.kind == "U":
        r = regions[t.subject]
        learns, leaves = (any(w.startswith(x) for w in t.writes) for x in ("g.", "d."))
        again = max(0, t.flops - r.weight_flops * learns - r.input_flops * leaves) >= r.forward_flops > 0
        return r.weight_bytes * learns + r.input_bytes * leaves + r.forward_bytes * again
    if t.kind == "T":  # h, z and d in, e out
        return 4 * regions[t.subject].z_bytes
    if t.kind in "DV" and t.subject in pathways:
        p = pathways[t.subject]
        ends = regions[p.source].z_bytes + regions[p.target].z_bytes
        return ends + FLOAT_BYTES * p.synapses * (1 if t.kind == "D" else 2)
    if t.kind == "L":
        return 3 * sum(r.z_bytes for r in regions.values() if t.reads[0] in (*r.outputs, f"s.{r.name}"))
    if t.kind == "S":  # every step runs all regions forward and back
        flops = sum(r.forward_flops + r.input_flops for r in regions.values())
        return t.flops * sum(r.forward_bytes + r.input_bytes for r in regions.values()) // max(1, flops)
    return 0
