"""Lower regions and error graph to tasks: what each reads and writes, in no particular order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from reclra_compile.ir import Pathway, Region, Target, Task
from reclra_compile.rules.catalogue import UPDATES
from reclra_compile.schedule.settling import phases, settled_updates, settles


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
    settling = settles(targets)
    if settling:
        tasks += phases(regions, targets, root)
    seen = f"s.{root}" if settling else output
    tasks.append(Task("L", "loss", (seen, "y"), ("loss", "d.loss"), wave=0))
    for name in (n for names in waves for n in names):
        region, target = by_name[name], target_of[name]
        if settling:
            tasks += [_target(region, target, ["loss"], 0, root)] * (name == root)
            tasks += settled_updates(region, target, root, wave[name])
            continue
        tasks += [
            _displacement(p, region, by_name[p.source], wave[name]) for p in into[name] if not p.edge
        ]
        tasks.append(_target(region, target, [p.name for p in into[name]] or ["loss"], wave[name], root))
        edges = along[name]
        if target.trainable or edges:
            flops = region.weight_flops * target.trainable + sum(p.flops for p in edges)
            flops += region.forward_flops * target.recompute
            writes = (f"g.{name}",) * target.trainable + tuple(f"d.{p.name}" for p in edges)
            tasks.append(Task("U", name, (f"e.{name}", f"h.{name}"), writes, wave[name], flops=flops))
    tasks += [
        _synapses(p, by_name[p.target], by_name[p.source], into[p.target], wave[p.target])
        for p in pathways
        if UPDATES[p.update].reads and not p.edge
    ]
    # one mirror serves all edges that leave a region: the first of them stands for it
    mirrors = {p.source: p for p in reversed(pathways)
               if p.edge and p.update == "weight_mirror" and any(q.synapses for q in along[p.source])}  # fmt: skip
    tasks += [Task("M", p.name, ("loss",), (f"g.{p.name}",), wave[p.target], flops=_mirror_flops(p.source, along))
              for p in mirrors.values()]  # fmt: skip
    return tuple(tasks)


def _mirror_flops(source: str, along: Mapping[str, list[Pathway]]) -> int:
    return sum(p.update_flops for p in along[source])


def _forward(region: Region, targeted: bool) -> Task:
    writes = [*region.outputs]
    if targeted:
        writes += [f"h.{region.name}"] + [f"z.{region.name}"] * region.tail
    return Task("F", region.name, region.inputs, tuple(writes), flops=region.forward_flops)


def activity(region: Region) -> str:
    """Name of the value z of a region: its main output, or `z.R` where a tail follows."""
    return f"z.{region.name}" if region.tail else region.outputs[0]


def _displacement(p: Pathway, target: Region, source: Region, wave: int) -> Task:
    if p.update == "autoencoding":  # the difference of two inversions, of the source's z and of its target
        return Task("D", p.name, (activity(source), f"e.{p.source}"), (f"d.{p.name}",), wave, flops=p.flops)
    if p.update == "local_loss":  # the error is made here, from the target's own read-out
        reads, writes = (activity(target), "y"), (f"d.{p.name}", f"r.{p.name}")
        return Task("D", p.name, reads, writes, wave, flops=p.flops)
    return Task("D", p.name, (f"e.{p.source}",), (f"d.{p.name}",), wave, flops=p.flops)


def _target(region: Region, target: Target, displacements: list[str], wave: int, root: str) -> Task:
    reads = [f"h.{region.name}", activity(region), *(f"d.{d}" for d in displacements)]
    if target.rescale:
        reads.append(f"e.{root}")
    return Task("T", region.name, tuple(dict.fromkeys(reads)), (f"e.{region.name}",), wave)


def _synapses(p: Pathway, target: Region, source: Region, into: list[Pathway], wave: int) -> Task:
    """Task V. The loss is read where only it tells whether gradients are divided by the batch size."""
    update = UPDATES[p.update]
    reads: tuple[str, ...] = update.reads
    if update.readout and p.update != "local_loss":  # which has read out already, for its displacement
        reads = tuple("y" if k == "r" else k for k in reads)
    if p.update == "autoencoding":
        reads = (*reads, "loss")
    value = {
        "z": (activity(target),),
        "h": (f"h.{target.name}",),
        "x": (*source.inputs, *target.inputs),
        "e": (f"e.{p.source}",),
        "d": tuple(f"d.{q.name}" for q in into if not q.edge),
        "y": ("y",),
        "loss": ("loss",),
        "r": (f"r.{p.name}",),
    }
    names = dict.fromkeys(name for k in reads for name in value[k])
    return Task("V", p.name, tuple(names), (f"g.{p.name}",), wave, flops=p.update_flops)
