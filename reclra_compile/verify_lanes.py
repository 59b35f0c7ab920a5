"""Check what a plan says of devices: turns, messages, and that no two devices wait for each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reclra_compile.errors import PlanError
from reclra_compile.ir import Plan
from reclra_compile.machine import MOST_PARTS, wrong_devices
from reclra_compile.schedule.values import base
from reclra_compile.simulate.events import simulate

MOST = 1e30  #: of any time or size: beyond it, sums of them lose their meaning
CODES = {
    "P112": "a number of the plan's devices or tasks is negative or not finite, or two devices have one name",
    "P109": "the plan's batch, microbatches, staleness or turns are out of range, or a turn falls on a device",
    "P110": "a task reads what is not on its device, or a message is not what a device needs",
    "P111": "the lanes of two devices wait for each other",
}


def turns(plan: Plan) -> Iterator[str]:
    """Turns begin at 0 or later, and never fall from a task to a later one of its device (P109)."""
    if plan.batch < 1:
        yield f"a batch of {plan.batch} samples is nothing to cut"
    if not 1 <= plan.schedule.microbatches <= MOST_PARTS:
        yield f"{plan.schedule.microbatches} microbatches are not from 1 to {MOST_PARTS:,}"
    if plan.schedule.staleness not in (0, 1):
        yield f"staleness {plan.schedule.staleness} is neither 0 nor 1"
    reached: dict[int, tuple[int, str]] = {}
    for t in plan.tasks:
        before, name = reached.get(t.device, (0, "the start"))
        if t.turn < before:
            yield f"task '{t.id}' is in turn {t.turn}, after '{name}' in turn {before} on the same device"
        reached[t.device] = (t.turn, t.id)
        if plan.schedule.staleness and t.turn > plan.schedule.microbatches:
            yield f"task '{t.id}' is in turn {t.turn}: a stale batch waits for it after {plan.schedule.microbatches}"


def numbers(plan: Plan) -> Iterator[str]:
    """Times, sizes and rates are finite and not negative, and no two devices have one name (P112)."""
    yield from wrong_devices(plan.devices)
    for t in plan.tasks:
        for name, value in (("us", t.us), ("flops", t.flops), ("bytes", t.bytes)):
            if not 0 <= value <= MOST:
                yield f"task '{t.id}' has {name} {value}"


def messages(plan: Plan) -> Iterator[str]:
    """Every read finds its value or a copy on the task's device; messages are sent and received once (P110)."""
    made = {v: t.device for t in plan.tasks for v in t.writes}
    sent = Counter(v for t in plan.tasks if t.kind == "P" for v in t.writes)
    received = Counter(v for t in plan.tasks if t.kind == "R" for v in t.reads)
    for v in sorted({*sent, *received}):
        if (sent[v], received[v]) != (1, 1):
            yield f"message '{v}' is sent {sent[v]} times and received {received[v]} times"
    for t in plan.tasks:
        if t.kind in "PR":
            yield from _message(t.kind, t.subject, t.reads, t.writes, t.device)
        if t.kind != "R":
            away = [v for v in t.reads if made.get(v, t.device) != t.device and not (t.kind == "X" and v in sent)]
            yield from (f"task '{t.id}' on device {t.device} reads '{v}', which is on device {made[v]}" for v in away)


def _message(kind: str, subject: str, reads: tuple[str, ...], writes: tuple[str, ...], device: int) -> Iterator[str]:
    if len(reads) != 1 or len(writes) != 1 or subject != writes[0]:
        yield f"task '{kind} {subject}' does not carry one value"
        return
    value, mark = base(writes[0]), "|" if kind == "R" else ">"
    wanted = f"{value}>{device}" if kind == "R" else value
    if reads[0] not in (wanted, f"{value}|{device}") or not writes[0].startswith(f"{value}{mark}"):
        yield f"task '{kind} {subject}' makes '{writes[0]}' of '{reads[0]}'"
    if kind == "R" and writes[0] != f"{value}|{device}":
        yield f"task 'R {subject}' is on device {device}"


def waiting(plan: Plan) -> Iterator[str]:
    """Every lane comes to its end (P111)."""
    if len(plan.devices) == 1 and not any(t.turn for t in plan.tasks):
        return
    try:
        simulate(plan)
    except PlanError as error:
        yield from (f.message for f in error.faults)
