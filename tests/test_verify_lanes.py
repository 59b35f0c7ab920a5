"""A sound plan on devices with one thing changed is refused, with a message that names the thing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from synthetic import chain

from reclra_compile.arrange import arrange
from reclra_compile.errors import PlanError
from reclra_compile.ir import Device, Plan, Schedule, Task
from reclra_compile.machine import Machine
from reclra_compile.verify import verify


@pytest.fixture(scope="module")
def sound() -> Plan:
    devices = tuple(Device(f"d{k}", flops_per_s=1e9) for k in range(3))
    return arrange(chain(6), devices, Machine(microbatches=4))


def edited(plan: Plan, name: str, **changes: Any) -> Plan:
    tasks = tuple(replace(t, **changes) if t.id == name else t for t in plan.tasks)
    assert tasks != plan.tasks
    return replace(plan, tasks=tasks)


def without(plan: Plan, name: str) -> Plan:
    assert any(t.id == name for t in plan.tasks)
    return replace(plan, tasks=tuple(t for t in plan.tasks if t.id != name))


def first(plan: Plan, kind: str) -> Task:
    return next(t for t in plan.tasks if t.kind == kind)


def refused(plan: Plan) -> str:
    with pytest.raises(PlanError) as failed:
        verify(plan)
    return str(failed.value)


def last_turn(plan: Plan, turn: int) -> Plan:
    """The plan with the last task of device 0 in another turn."""
    return edited(plan, [t.id for t in plan.tasks if t.device == 0][-1], turn=turn)


def devices(plan: Plan, **changes: Any) -> Plan:
    """The plan with its first device changed."""
    return replace(plan, devices=(replace(plan.devices[0], **changes), *plan.devices[1:]))


MUTATIONS: list[tuple[str, Callable[[Plan], Plan], str]] = [
    ("P109", lambda p: replace(p, schedule=Schedule(0)), "0 microbatches"),
    ("P109", lambda p: replace(p, schedule=Schedule(10**9)), "1000000000 microbatches"),
    ("P109", lambda p: replace(p, schedule=Schedule(4, 2)), "staleness 2"),
    ("P109", lambda p: last_turn(replace(p, schedule=Schedule(4, 1)), 5), "is in turn 5: a stale batch"),
    ("P112", lambda p: edited(p, "F r0", us=math.nan), "'F r0' has us nan"),
    ("P112", lambda p: edited(p, "F r0", us=1e300), "has us 1e+300"),
    ("P112", lambda p: edited(p, "F r0", bytes=-7), "has bytes -7"),
    ("P112", lambda p: devices(p, link_latency_us=-1.0), "'d0' has link_latency_us -1"),
    ("P112", lambda p: devices(p, name="d1"), "'d1' is there 2 times"),
    ("P109", lambda p: edited(p, "F r0", turn=-1), "'F r0' is in turn -1"),
    ("P109", lambda p: edited(p, "F r0", turn=9), "after 'F r0' in turn 9 on the same device"),
    ("P107", lambda p: without(p, first(p, "P").id), "before it is written"),
    ("P107", lambda p: without(p, first(p, "R").id), "before it is written"),
    ("P106", lambda p: edited(p, "F r5", device=0), "'F r5' is on device 0"),
    ("P110", lambda p: edited(p, first(p, "P").id, device=1), "which is on device 0"),
    ("P110", lambda p: edited(p, first(p, "R").id, device=2), "is on device 2"),
    ("P110", lambda p: edited(p, first(p, "P").id, subject="z.x>1"), "does not carry one value"),
    ("P108", lambda p: replace(p, placement=replace(p.placement, peak_bytes=(1, 2, 3))), "is stated to need 1 bytes"),
]


@pytest.mark.parametrize(("code", "mutate", "said"), MUTATIONS)
def test_a_change_is_found_and_named(sound: Plan, code: str, mutate: Callable[[Plan], Plan], said: str) -> None:
    verify(sound)
    text = refused(mutate(sound))
    assert code in text
    assert said in text


def test_a_reader_that_skips_its_message_is_found(sound: Plan) -> None:
    receipt = first(sound, "R")
    reader = next(t for t in sound.tasks if receipt.writes[0] in t.reads and t.kind == "F")
    value = receipt.writes[0].partition("|")[0]
    plan = edited(sound, reader.id, reads=tuple(value if v in receipt.writes else v for v in reader.reads))
    assert f"'{reader.id}' on device {reader.device} reads '{value}'" in refused(plan)


def test_lanes_that_wait_for_each_other_are_found() -> None:
    """Device 0 holds r0 and r2, device 1 what lies between. Device 0 puts r2's error off until its next forward pass,
    which needs r1's; device 1 does not begin that before it has heard r2's error.
    """
    devices = tuple(Device(f"d{k}", flops_per_s=1e9) for k in range(2))
    plan = arrange(chain(3), devices, Machine(microbatches=3, pins={"r0": 0, "r1": 1, "r2": 0}))
    free = replace(plan, placement=replace(plan.placement, peak_bytes=()))
    verify(free)
    tasks = tuple(replace(t, turn=int(t.device == 0 and t.wave >= 0)) for t in free.tasks)
    text = refused(replace(free, tasks=tasks))
    assert "P111" in text
    assert "wait for each other" in text
    verify(replace(free, tasks=tuple(replace(t, turn=0) for t in free.tasks)))
