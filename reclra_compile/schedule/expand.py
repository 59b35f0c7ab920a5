"""What each device runs, in order: its lane; and one sequence of all lanes that a single process can follow."""

from __future__ import annotations

import heapq
import random
from collections import defaultdict

from reclra_compile.errors import Fault, PlanError
from reclra_compile.ir import Plan

Event = tuple[int, int]  #: a task, by its place in the plan, and a microbatch
Lane = tuple[Event, ...]

def lanes(plan: Plan) -> tuple[Lane, ...]:
    """For each device its tasks and microbatches in the order of turns."""
    found: list[list[tuple[int, int, int]]] = [[] for _ in plan.devices]
    for i, t in enumerate(plan.tasks):
        found[t.device] += [(m + t.turn, i, m) for m in range(plan.schedule.microbatches)]
    return tuple(tuple((i, m) for _, i, m in sorted(lane)) for lane in found)


def interleaved(plan: Plan, rng: random.Random | None = None) -> Lane:
    """All lanes as one sequence in which every value is written before it is read; with `rng` a random such one.

    Without it, the device whose next task has the earliest turn goes on. Raises PlanError (P111) where none can.
    """
    rows = lanes(plan)
    writer = {v: i for i, t in enumerate(plan.tasks) for v in t.writes}
    needs = [{writer[v] for v in t.reads if v in writer} for t in plan.tasks]
    readers: dict[int, list[int]] = defaultdict(list)
    for i, sources in enumerate(needs):
        for s in sources:
            readers[s].append(i)
    done: set[Event] = set()
    place = [0] * len(rows)
    at = {event: d for d, row in enumerate(rows) for event in row}
    ready: list[tuple[float, int, int]] = []

    def offer(d: int) -> None:
        """Let device d go on if what its next task reads is there."""
        if place[d] < len(rows[d]):
            i, m = rows[d][place[d]]
            if all((s, m) in done for s in needs[i]):
                heapq.heappush(ready, (m + plan.tasks[i].turn if rng is None else rng.random(), i, d))

    for d in range(len(rows)):
        offer(d)
    sequence: list[Event] = []
    while ready:
        d = heapq.heappop(ready)[2]
        event = rows[d][place[d]]
        place[d] += 1
        done.add(event)
        sequence.append(event)
        i, m = event
        for e in {at[r, m] for r in readers[i]} - {d}:
            if place[e] < len(rows[e]) and rows[e][place[e]][1] == m and rows[e][place[e]][0] in readers[i]:
                offer(e)
        offer(d)
    stuck = [rows[d][k] for d, k in enumerate(place) if k < len(rows[d])]
    if stuck:
        raise PlanError(_waiting(plan, stuck))
    return tuple(sequence)


def _waiting(plan: Plan, stuck: list[Event]) -> Fault:
    where = ((plan.devices[plan.tasks[i].device].name, plan.tasks[i].id, m) for i, m in stuck[:4])
    shown = "; ".join(f"'{device}' is at '{task}' of microbatch {m}" for device, task, m in where)
    return Fault("P111", f"devices wait for each other: {shown}", fix="give the tasks that wait later turns")
