"""Lower regions and error graph to tasks: what each reads and writes, in no particular order."""

from __future__ import annotations

from collections import defaultdict

from reclra_compile.ir import Pathway, Region, Target, Task

READS_OF_UPDATE: dict[str, tuple[str, ...]] = {
    "kolen_pollack": ("z", "e"),
    "lra": ("d", "e"),
    "local_readout": ("z", "y", "loss"),
    "local_loss": ("z", "r"),
}
"""What a synapse update reads: z and (total) d of the target, e of the source, labels y, the loss, with
which it becomes known whether gradients are divided by the batch size (mean or sum), and r, the error of
the target's own read-out.
"""


def whole_regions(targets: tuple[Target, ...], pathways: tuple[Pathway, ...]) -> frozenset[str]:
    """Regions that need no error neurons of their own at h: gradient rule, fed only along the model's
    edges (or by the loss), and read by no other kernel. Their VJP runs in one piece, φ and tail included.
    """
    split = {name for p in pathways if not p.edge for name in (p.source, p.target)}
    if any(t.rescale for t in targets):  # every rescaled region reads e of the output, which hears no pathway
        split |= {t.region for t in targets} - {p.target for p in pathways}
    return frozenset(t.region for t in targets if t.rule == "gradient" and t.region not in split)


def lower(
    regions: tuple[Region, ...],
    targets: tuple[Target, ...],
    pathways: tuple[Pathway, ...],
    waves: tuple[tuple[str, ...], ...],
    output: str,
) -> tuple[Task, ...]:
    """Tasks F, L, D, T, U and V with their reads, writes, waves and FLOPs."""
    wave = {n: k for k, names in enumerate(waves) for n in names}
    target_of = {t.region: t for t in targets}
    into: dict[str, list[Pathway]] = defaultdict(list)
    along: dict[str, list[Pathway]] = defaultdict(list)
    for p in pathways:
        into[p.target].append(p)
        if p.edge:
            along[p.source].append(p)
    root = waves[0][0]
    by_name = {r.name: r for r in regions}
    tasks = [_forward(r, r.name in target_of) for r in regions]
    tasks.append(Task("L", "loss", (output, "y"), ("loss", "d.loss"), wave=0))
    for name in (n for names in waves for n in names):
        region, target = by_name[name], target_of[name]
        tasks += [
            _displacement(p, region, wave[name]) for p in into[name] if not p.edge
        ]
        tasks.append(_target(region, target, [p.name for p in into[name]] or ["loss"], wave[name], root))
        edges = along[name]
        if target.trainable or edges:
            flops = region.weight_flops * target.trainable + sum(p.flops for p in edges)
            flops += region.forward_flops * target.recompute
            writes = (f"g.{name}",) * target.trainable + tuple(f"d.{p.name}" for p in edges)
            tasks.append(Task("U", name, (f"e.{name}", f"h.{name}"), writes, wave[name], flops=flops))
    tasks += [
        _synapses(p, by_name[p.target], into[p.target], wave[p.target])
        for p in pathways
        if p.update in READS_OF_UPDATE and not p.edge
    ]
    return tuple(tasks)


def _forward(region: Region, targeted: bool) -> Task:
    writes = [*region.outputs]
    if targeted:
        writes += [f"h.{region.name}"] + [f"z.{region.name}"] * region.tail
    return Task("F", region.name, region.inputs, tuple(writes), flops=region.forward_flops)


def activity(region: Region) -> str:
    """Name of the value z of a region: its main output, or `z.R` where a tail follows."""
    return f"z.{region.name}" if region.tail else region.outputs[0]


def _displacement(p: Pathway, target: Region, wave: int) -> Task:
    if p.update == "local_loss":  # the error is made here, from the target's own read-out
        reads, writes = (activity(target), "y", "loss"), (f"d.{p.name}", f"r.{p.name}")
        return Task("D", p.name, reads, writes, wave, flops=p.flops)
    return Task("D", p.name, (f"e.{p.source}",), (f"d.{p.name}",), wave, flops=p.flops)


def _target(region: Region, target: Target, displacements: list[str], wave: int, root: str) -> Task:
    reads = [f"h.{region.name}", activity(region), *(f"d.{d}" for d in displacements)]
    if target.rescale:
        reads.append(f"e.{root}")
    return Task("T", region.name, tuple(dict.fromkeys(reads)), (f"e.{region.name}",), wave)


def _synapses(p: Pathway, target: Region, into: list[Pathway], wave: int) -> Task:
    value = {
        "z": (activity(target),),
        "e": (f"e.{p.source}",),
        "d": tuple(f"d.{q.name}" for q in into if not q.edge),
        "y": ("y",),
        "loss": ("loss",),
        "r": (f"r.{p.name}",),
    }
    reads = tuple(name for k in READS_OF_UPDATE[p.update] for name in value[k])
    return Task("V", p.name, reads, (f"g.{p.name}",), wave, flops=p.update_flops)
