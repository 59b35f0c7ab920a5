"""Which messages of a plan go together from one stage to another, and in which order both sides expect them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from reclra_compile.ir import Plan
from reclra_compile.schedule.expand import Lane, lanes
from reclra_compile.schedule.values import base


@dataclass(frozen=True, slots=True)
class Packet:
    """P tasks, by their places in the plan, that one stage posts to another without computing in between."""

    tasks: tuple[int, ...]
    microbatch: int


Order = tuple[Packet, ...]


def destinations(plan: Plan) -> dict[int, int]:
    """The device that each P task, by its place in the plan, posts to."""
    reader = {v: t.device for t in plan.tasks if t.kind == "R" for v in t.reads}
    return {i: reader[t.writes[0]] for i, t in enumerate(plan.tasks) if t.kind == "P"}


def orders(plan: Plan, wanted: frozenset[int] | None = None) -> dict[tuple[int, int], Order]:
    """For each pair (from, to) of devices what is sent, in the order of the sender's lane.

    A receiver that waits for one packet takes those before it first: they were posted earlier, or are being posted.
    Messages to one device between which nothing is computed are one packet. `wanted`: these tasks only.
    """
    to = destinations(plan)
    found: dict[tuple[int, int], list[Packet]] = defaultdict(list)
    for device, lane in enumerate(lanes(plan)):
        for target, packet in _packets(plan, lane, to, wanted):
            found[device, target].append(packet)
    return {pair: tuple(packets) for pair, packets in found.items()}


def _packets(plan: Plan, lane: Lane, to: dict[int, int], wanted: frozenset[int] | None) -> list[tuple[int, Packet]]:
    """The packets of one lane in the order of their last messages, each with its device."""
    made: list[tuple[int, Packet]] = []
    open_: dict[int, tuple[int, list[int]]] = {}  # device → (microbatch, tasks)

    def close() -> None:
        ended = sorted(open_.items(), key=lambda item: lane_place[item[1][1][-1], item[1][0]])
        made.extend((device, Packet(tuple(tasks), m)) for device, (m, tasks) in ended)
        open_.clear()

    lane_place = {event: k for k, event in enumerate(lane)}
    for i, m in lane:
        kind = plan.tasks[i].kind
        if wanted is not None and i not in wanted:
            continue
        if kind == "P":
            device = to[i]
            if device in open_ and open_[device][0] != m:
                close()
            open_.setdefault(device, (m, []))[1].append(i)
        elif kind != "X":
            close()
    close()
    return made


def fields(plan: Plan) -> dict[int, str]:
    """For each P task that sends error neurons (E4) which of `e` and `c` its readers want: "e", "c" or "ec".

    Displacements are made of e per sample, synapse updates of c, which is e in units of the loss.
    """
    wants: dict[tuple[str, int], set[str]] = defaultdict(set)
    for t in plan.tasks:
        if t.kind in "PRX":
            continue
        for v in t.reads:
            if v.startswith("e."):
                wants[base(v), t.device].add("e" if t.kind in "DT" else "c")
    to = destinations(plan)
    return {
        i: "".join(sorted(wants[base(plan.tasks[i].reads[0]), device], reverse=True)) or "ec"
        for i, device in to.items()
        if plan.tasks[i].reads[0].startswith("e.")
    }
