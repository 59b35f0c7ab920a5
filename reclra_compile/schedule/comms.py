"""Put tasks on devices, and insert what brings a value from the device that makes it to those that read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from reclra_compile.ir import Pathway, Task
from reclra_compile.schedule.values import base


def placed(
    tasks: tuple[Task, ...], device_of: Mapping[str, int], pathways: tuple[Pathway, ...], root: str
) -> tuple[Task, ...]:
    """`tasks` on the devices of their regions: the loss where the output region is, displacements and synapse
    updates where their target is, mirror mode with the weights that it mirrors.
    """
    home = {p.name: p for p in pathways}

    def device(t: Task) -> int:
        if t.kind in "LS":
            return device_of[root]
        if t.kind == "M":
            return device_of[home[t.subject].source]
        return device_of[home[t.subject].target if t.kind in "DV" else t.subject]

    return tuple(replace(t, device=device(t)) for t in tasks)


def communicate(tasks: tuple[Task, ...], sizes: Mapping[str, int]) -> tuple[Task, ...]:
    """`tasks` with a P (post) after the writer and an R (receive) before the first reader on another device.

    Readers there read the copy `V|device`. A value is sent once to each device, in the order of their numbers; the
    model's inputs and labels are everywhere. `sizes` gives the bytes of each value.
    """
    writer = {v: t.device for t in tasks for v in t.writes}
    first: dict[tuple[str, int], int] = {}
    bound_for: dict[str, list[int]] = defaultdict(list)
    for i, t in enumerate(tasks):
        for v in t.reads:
            if writer.get(v, t.device) != t.device and (v, t.device) not in first:
                first[v, t.device] = i
                bound_for[v].append(t.device)
    arriving: dict[int, list[str]] = defaultdict(list)
    for (v, _), i in first.items():
        arriving[i].append(v)
    made: list[Task] = []
    for i, t in enumerate(tasks):
        here = t.device
        made += [
            Task("R", f"{v}|{here}", (f"{v}>{here}",), (f"{v}|{here}",), t.wave, here, bytes=sizes[v])
            for v in arriving[i]
        ]
        made.append(replace(t, reads=tuple(f"{v}|{here}" if (v, here) in first else v for v in t.reads)))
        made += [
            Task("P", f"{v}>{there}", (v,), (f"{v}>{there}",), t.wave, here, bytes=sizes[v])
            for v in t.writes
            for there in sorted(bound_for[v])
        ]
    return tuple(made)


def without_messages(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """The tasks that compute, as they are on one device: no messages, no frees, and reads by their own names."""
    computing = (t for t in tasks if t.kind not in "PRX")
    return tuple(
        replace(t, reads=tuple(base(v) for v in t.reads), device=0, us=0.0, turn=0) for t in computing
    )
