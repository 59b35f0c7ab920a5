"""What the script of a page knows about a plan, as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from reclra_compile.ir import Pathway, Plan, Region, Task
from reclra_compile.placement.times import unit_of
from reclra_compile.view.blocks import blocks
from reclra_compile.view.facts import Facts, drawable, output_region, pathway_facts, region_facts, shape_text, wave_of
from reclra_compile.view.label import time_text
from reclra_compile.view.layout import links_of
from reclra_compile.view.recorded import MOST_SPANS, Recorded, of_simulation

_KINDS = {"F": "forward", "L": "loss", "D": "displacement", "T": "error neurons", "U": "weight update",
          "V": "synapse update", "M": "mirror", "S": "settling"}  # fmt: skip

Times = Mapping[str, Mapping[str, float]]


def plan_data(plan: Plan, measured: Recorded | None = None) -> dict[str, Any]:
    """A plan as numbers, names and facts; of several devices or with times also its tasks, and when they run."""
    waves, targets = wave_of(plan), {t.region: t for t in plan.targets}
    index = {r.name: i for i, r in enumerate(plan.regions)}
    several = len(plan.devices) > 1
    place = dict(plan.placement.regions) if several else {}
    times = _times(plan)
    unit = unit_of(plan.devices)

    def region(r: Region) -> dict[str, Any]:
        t = targets.get(r.name)
        device = place.get(r.name, -1)
        facts = region_facts(r, t, waves.get(r.name), plan.devices[device].name if device >= 0 else "")
        return {
            "name": r.name, "wave": waves.get(r.name, -1), "device": device,
            "line": r.op if r.phi == "identity" else f"{r.op} · {r.phi}", "shape": shape_text(r.shape),
            "frozen": t is not None and not t.trainable and r.parameter_count > 0,
            "parameters": r.parameter_count, "flops": r.forward_flops + r.weight_flops,
            "facts": [*facts, *_time_facts(times.get(r.name, {}), plan, unit)],
        }  # fmt: skip

    def pathway(p: Pathway) -> dict[str, Any]:
        facts = [*pathway_facts(p, waves.get(p.target)), *_time_facts(times.get(p.name, {}), plan, unit)]
        return {"name": p.name, "source": index[p.source], "target": index[p.target], "tied": p.edge,
                "wave": waves.get(p.target, -1), "kernel": p.kernel, "update": p.update, "synapses": p.synapses,
                "flops": p.flops + p.update_flops, "facts": facts}  # fmt: skip

    data: dict[str, Any] = {
        "name": plan.name, "model": plan.model, "waves": len(plan.waves), "unit": unit,
        "microbatches": plan.schedule.microbatches,
        "inputs": [{"name": name, "shape": shape_text(shape)} for name, shape, _ in plan.inputs],
        "regions": [region(r) for r in plan.regions],
        "pathways": [pathway(p) for p in drawable(plan)],
        "blocks": [{"name": b.name, "label": b.label, "parent": b.parent, "regions": b.regions} for b in blocks(plan)],
        "links": links_of(plan), "output": index.get(output_region(plan), -1),
    }  # fmt: skip
    timed = any(t.us for t in plan.tasks)
    if several or timed or measured:
        data["devices"] = _devices(plan)
        data["tasks"] = [_task(t) for t in plan.tasks]
    if timed:
        data["predicted"] = _predicted(plan)
    if measured:
        data["measured"] = _measured(plan, measured)
    return data


def _times(plan: Plan) -> Times:
    """The time of each kind of task of each region and pathway, for one microbatch."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for t in plan.tasks:
        if t.us and t.kind in _KINDS:
            found[t.subject][t.kind] = found[t.subject].get(t.kind, 0.0) + t.us
    return found


def _time_facts(times: Mapping[str, float], plan: Plan, unit: str) -> Facts:
    if not times:
        return ()
    of = " of a microbatch" if plan.schedule.microbatches > 1 else ""
    said = ", ".join(f"{_KINDS[k]} {time_text(us, unit)}" for k, us in times.items())
    return (("time" + of, said), ("all its tasks", time_text(sum(times.values()), unit)))


def _devices(plan: Plan) -> list[dict[str, Any]]:
    peaks = plan.placement.peak_bytes
    return [
        {"name": d.name, "kind": d.kind, "peak": peaks[k] if k < len(peaks) else 0, "memory": d.memory_bytes}
        for k, d in enumerate(plan.devices)
    ]


def _task(t: Task) -> list[Any]:
    """Kind, subject, device, wave, bytes, time; short, as there are many."""
    return [t.kind, t.subject, t.device, t.wave, t.bytes, round(t.us, 3)]


def _predicted(plan: Plan) -> dict[str, Any]:
    step = plan.simulate()
    many, lengths = plan.schedule.microbatches * step.batches, step.layout.length_us
    timed = [(t, lengths[i]) for i, t in enumerate(plan.tasks) if t.kind != "X" and lengths[i]]
    return _spans(of_simulation(plan, step=step), many * len(timed), ((t.kind, many * us) for t, us in timed))


def _measured(plan: Plan, step: Recorded) -> dict[str, Any]:
    return _spans(step, len(step.spans), ((plan.tasks[s.task].kind, s.end_us - s.start_us) for s in step.spans))


def _spans(step: Recorded, all_: int, times: Iterable[tuple[str, float]]) -> dict[str, Any]:
    """The first spans of a step that has `all_`, whose `times` by kind of task are summed, those left out included."""
    sums: dict[str, float] = defaultdict(float)
    for kind, us in times:
        sums[kind] += us
    shown = sorted(step.spans, key=lambda s: s.start_us)[:MOST_SPANS]
    rows = [[s.task, s.microbatch, s.device, round(s.start_us, 3), round(s.end_us, 3)] for s in shown]
    return {"devices": step.devices, "until": step.end_us, "all": all_, "spans": rows,
            "sums": {kind: round(us, 3) for kind, us in sums.items()}}  # fmt: skip
