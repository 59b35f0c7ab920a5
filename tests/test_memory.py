"""Peaks of memory are what a walk through all turns of each lane finds; static bytes are as counted by hand."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import chain, dag

from reclra_compile.errors import PlacementError
from reclra_compile.ir import Device, Placement, Plan, Schedule, Training
from reclra_compile.placement.memory import (
    batch_bytes,
    check_memory,
    holders,
    lane_peaks,
    microbatch_bytes,
    peaks,
    static_bytes,
)
from reclra_compile.schedule.comms import communicate, placed, without_messages
from reclra_compile.schedule.order import frees, order
from reclra_compile.schedule.values import base, value_bytes


def on_devices(plan: Plan, where: list[int], schedule: Schedule, ahead: list[list[int]] | None = None) -> Plan:
    """The plan with region k on device where[k]; device d runs wave w in turns ahead[d][w + 1] behind."""
    regions = {r.name: d for r, d in zip(plan.regions, where, strict=True)}
    tasks = placed(order(without_messages(plan.tasks)), regions, plan.pathways, plan.waves[0][0])
    tasks = frees(communicate(tasks, value_bytes(plan.regions, plan.pathways, plan.output)))
    if ahead:
        tasks = tuple(replace(t, turn=ahead[t.device][t.wave + 1]) for t in tasks)
    devices = tuple(Device(f"d{k}") for k in range(max(where) + 1))
    return replace(plan, tasks=tasks, devices=devices, schedule=schedule, placement=Placement(tuple(regions.items())))


def walked(plan: Plan, device: int) -> int:
    """The peak of one lane, found by running it turn by turn with every instance of every value."""
    sizes, held = microbatch_bytes(plan), holders(plan.tasks)
    lane = [t for t in plan.tasks if t.device == device]
    alive: Counter[tuple[str, int]] = Counter()
    freed: set[tuple[str, int]] = set()
    most = 0
    schedule = plan.schedule
    for turn in range(schedule.microbatches + max((t.turn for t in lane), default=0)):
        for t in lane:
            m = turn - t.turn
            if not 0 <= m < schedule.microbatches:
                continue
            if t.kind == "X":
                freed |= {(v, m) for v in t.reads}
                gone = [(v, n) for v, n in alive if (v, n) in freed
                        and all((h, n) in freed for h in held.get((v, device), ()))]  # fmt: skip
                for key in gone:
                    del alive[key]
            elif t.kind != "P":
                new = (*t.writes, *t.reads[:1]) if t.kind == "R" else t.writes
                alive.update({(v, m): sizes.get(base(v), 0) for v in new if v != "loss"})
                most = max(most, sum(alive.values()))
    return most


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), st.integers(2, 7), st.integers(1, 3), st.integers(1, 6), st.booleans())
def test_peaks_are_those_of_a_walk_through_all_turns(
    seed: int, length: int, count: int, microbatches: int, backprop: bool
) -> None:
    rng = random.Random(seed)
    plan = chain(length, "backprop") if backprop else dag(seed, length)
    plan = replace(plan, regions=tuple(replace(r, saved_bytes=rng.choice([0, 1000])) for r in plan.regions))
    where = [rng.randrange(count) for _ in range(length - 1)]
    where = [*where, max(where)]
    rows = [[0, *sorted(rng.randrange(2 * microbatches) for _ in plan.waves)] for _ in range(max(where) + 1)]
    made = on_devices(plan, where, Schedule(microbatches), rows)
    values = lane_peaks(made.tasks, microbatch_bytes(made), len(made.devices), holders(made.tasks), microbatches)
    assert list(values) == [walked(made, d) for d in range(len(made.devices))]
    assert peaks(made) == tuple(a + b for a, b in zip(values, static_bytes(made), strict=True))


def test_a_chain_of_two_by_hand() -> None:
    """8 samples, 8 neurons: a value is 256 bytes. r0, r1 keep h and z; z.r0 stays until r1 has its update."""
    plan = on_devices(chain(2), [0, 0], Schedule())
    assert {v: s for v, s in batch_bytes(plan).items() if v[0] in "zhe"} == {
        f"{v}.r{k}": 256 for v in "zhe" for k in (0, 1)}  # fmt: skip
    weights, inputs = 2 * 8 * 8 * 4 * 4, 8 * 8 * 4
    assert static_bytes(plan) == (weights + inputs,)
    # the forward pass leaves z.r0, h.r0, z.r1, h.r1; the loss adds d.loss, and e.r1 while h, z and d.loss are there
    assert peaks(plan) == (weights + inputs + 6 * 256,)


def test_more_in_flight_is_more_memory_and_smaller_parts_less() -> None:
    plan = chain(4)
    one, eight = (peaks(on_devices(plan, [0, 0, 1, 1], Schedule(m))) for m in (1, 8))
    assert all(a > b for a, b in zip(one, eight, strict=True))
    flying = peaks(on_devices(plan, [0, 0, 1, 1], Schedule(8), [[0, 3, 3], [0, 1, 1]]))
    assert all(a > b for a, b in zip(flying, eight, strict=True))


def test_what_runs_again_keeps_only_its_inputs() -> None:
    plan = chain(3)
    plan = replace(plan, regions=tuple(replace(r, saved_bytes=10_000) for r in plan.regions))
    again = replace(plan, targets=tuple(replace(t, recompute=True) for t in plan.targets))
    kept, less = (peaks(on_devices(p, [0, 0, 0], Schedule()))[0] for p in (plan, again))
    assert kept - less == 30_000


@pytest.mark.parametrize(("optimizer", "copies"), [("sgd", 3), ("adam", 4), ("adamw", 4)])
def test_static_bytes_follow_the_optimizer_and_staleness(optimizer: str, copies: int) -> None:
    plan = replace(chain(2), training=Training(optimizer=optimizer))
    made = on_devices(plan, [0, 1], Schedule())
    assert static_bytes(made) == (256 * copies + 256, 256 * copies)
    late = on_devices(plan, [0, 1], Schedule(staleness=1))
    assert static_bytes(late) == (256 * (copies + 1) + 256, 256 * (copies + 1))


def test_frozen_weights_have_no_gradients() -> None:
    plan = chain(2)
    plan = replace(plan, targets=tuple(replace(t, trainable=t.region != "r0") for t in plan.targets))
    assert static_bytes(on_devices(plan, [0, 1], Schedule())) == (256 + 256, 256 * 4)


def test_synapses_are_where_their_target_is() -> None:
    plan = chain(3)
    rule = {"r0": "fixed", "r1": "kolen_pollack"}
    plan = replace(plan, pathways=tuple(replace(p, synapses=100, update=rule[p.target]) for p in plan.pathways))
    here = static_bytes(on_devices(plan, [0, 1, 2], Schedule()))
    assert here == (256 * 4 + 256 + 400, 256 * 4 + 1600, 256 * 4)


def test_shared_weights_count_once_on_a_device() -> None:
    plan = chain(3)
    first, second, third = plan.regions
    tied = replace(third, parameters=(*first.parameters, "bias"), parameter_sizes=(256, 44))
    plan = replace(plan, regions=(first, second, tied))
    assert static_bytes(on_devices(plan, [0, 1, 0], Schedule())) == (300 * 4 + 256, 256 * 4)
    other = replace(second, parameters=("bias", "r1.weight"), parameter_sizes=(44, 256))  # neither is within the other
    plan = replace(plan, regions=(first, other, tied))
    assert static_bytes(on_devices(plan, [0, 0, 0], Schedule())) == ((256 + 44 + 256) * 4 + 256,)


def test_what_does_not_fit_is_refused() -> None:
    plan = on_devices(chain(2), [0, 1], Schedule())
    needed = peaks(plan)
    stated = replace(plan, placement=replace(plan.placement, peak_bytes=needed))
    assert check_memory(stated) is stated
    small = (replace(plan.devices[0], memory_bytes=needed[0] - 1), replace(plan.devices[1], memory_bytes=needed[1]))
    with pytest.raises(PlacementError, match=r"device 'd0' needs \d.* but has") as caught:
        check_memory(replace(stated, devices=small))
    assert [f.code for f in caught.value.faults] == ["N005"]
