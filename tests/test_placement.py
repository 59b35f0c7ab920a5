"""Regions on devices: exact against all consecutive parts, conflict-free as in the paper, and within memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import UNIT, chain, dag, region

import reclra_compile.placement.assign
from reclra_compile.arrange import arrange
from reclra_compile.errors import PlacementError
from reclra_compile.ir import Device, Plan, Schedule, Target
from reclra_compile.machine import Machine
from reclra_compile.placement.assign import ABOUT, assign, candidates_for, consecutive, memory_of
from reclra_compile.placement.devices import parse_devices
from reclra_compile.placement.estimate import Estimate
from reclra_compile.placement.memory import peaks
from reclra_compile.placement.partition import Chain, conflict_table, cut
from reclra_compile.placement.pins import units
from reclra_compile.schedule.comms import without_messages
from reclra_compile.schedule.order import order
from reclra_compile.schedule.values import with_traffic
from reclra_compile.spec.load import load_wiring


def bare(plan: Plan, devices: str | tuple[Device, ...], microbatches: int = 1) -> Plan:
    """The plan as placement takes it: tasks that are not placed, devices, microbatches."""
    tasks = with_traffic(order(without_messages(plan.tasks)), plan.regions, plan.targets, plan.pathways)
    found = parse_devices(devices) if isinstance(devices, str) else devices
    return replace(plan, tasks=tasks, devices=found, schedule=Schedule(microbatches))


def estimate(plan: Plan, pins: dict[str, Any] | None = None) -> Estimate:
    return Estimate(plan, units(plan.regions, pins or {}, plan.devices))


def machines(*speeds: float, memory: int = 0) -> tuple[Device, ...]:
    """Devices of these speeds, in FLOPs per microsecond, that have `memory` bytes."""
    return tuple(Device(f"d{k}", f"s{s:g}", flops_per_s=s * 1e6, memory_bytes=memory) for k, s in enumerate(speeds))


def faults(plan: Plan, pins: dict[str, Any] | None = None) -> list[tuple[str, str, str]]:
    with pytest.raises(PlacementError) as caught:
        assign(plan, pins)
    return [(f.code, f.message, f.fix) for f in caught.value.faults]


# consecutive parts


def every_cut(devices: int, items: int, gaps: bool) -> Iterator[tuple[int, ...]]:
    choose = itertools.combinations_with_replacement if gaps else itertools.combinations
    inner = range(items + 1) if gaps else range(1, items)
    yield from ((0, *c, items) for c in choose(inner, devices - 1))


def worth(case: Chain, cuts: tuple[int, ...], table: np.ndarray | None) -> tuple[float, float] | None:
    """Conflicts and largest time of the parts, each added up anew; None where they do not fit."""
    conflicts, slowest = 0.0, 0.0
    for p, (i, j) in enumerate(itertools.pairwise(cuts)):
        if case.bytes_[p, i:j].sum() > case.limits[p] or not case.allowed[p, i:j].all():
            return None
        conflicts += table[i, j] if table is not None else 0.0
        slowest = max(slowest, float(case.times[p, i:j].sum()))
    return conflicts, slowest


@st.composite
def chains(draw: st.DrawFn) -> tuple[Chain, np.ndarray | None]:
    devices, items = draw(st.integers(1, 4)), draw(st.integers(4, 8))
    numbers = st.lists(st.integers(0, 9), min_size=items, max_size=items)
    base = np.array(draw(numbers), dtype=float)
    speeds = draw(st.lists(st.sampled_from([1.0, 1.0, 2.0, 0.5]), min_size=devices, max_size=devices))
    bytes_ = np.broadcast_to(np.array(draw(numbers), dtype=float), (devices, items))
    limits = draw(st.lists(st.sampled_from([np.inf, 30.0, 15.0]), min_size=devices, max_size=devices))
    allowed = np.ones((devices, items), dtype=bool)
    if draw(st.booleans()):
        pinned = draw(st.integers(0, items - 1))
        allowed[:, pinned] = np.arange(devices) == draw(st.integers(0, devices - 1))
    waves = [[w] if w else [] for w in draw(st.lists(st.integers(0, 3), min_size=items, max_size=items))]
    zero = np.zeros(devices)
    case = Chain(base / np.array(speeds)[:, None], bytes_, np.array(limits), zero, zero, allowed, draw(st.booleans()))
    return case, conflict_table(waves) if draw(st.booleans()) else None


@settings(deadline=None, max_examples=150)
@given(chains())
def test_parts_are_the_best_of_all(given_: tuple[Chain, np.ndarray | None]) -> None:
    case, table = given_
    every = [w for c in every_cut(*case.times.shape, case.gaps) if (w := worth(case, c, table))]
    found = cut(case, table)
    if found is None:
        assert not every
        return
    mine = worth(case, found, table)
    assert mine is not None
    assert mine[0] == min(every)[0]
    assert mine[1] == pytest.approx(min(every)[1])


def test_of_equal_bottlenecks_the_even_parts_are_taken() -> None:
    times = np.array([[8.0, 1, 1, 1, 1, 1, 1]] * 3)
    zero = np.zeros(3)
    case = Chain(times, times * 0, zero + np.inf, zero, zero, np.ones((3, 7), dtype=bool))
    assert cut(case) == (0, 1, 4, 7)


@given(st.lists(st.lists(st.integers(0, 3), max_size=2), max_size=6))
def test_conflicts_count_all_but_the_first_of_a_group(groups: list[list[int]]) -> None:
    table = conflict_table(groups)
    for i, j in itertools.combinations_with_replacement(range(len(groups) + 1), 2):
        listed = [g for own in groups[i:j] for g in own]
        extra = sum(len(set(own)) != len(own) for own in groups[i:j])
        assert extra or table[i, j] == len(listed) - len(set(listed))


# the paper's picture


def figure1() -> Plan:
    """Nine equal layers; 2, 5 and 8 hear the output, the others the next of them."""
    from synthetic import plan_of

    from reclra_compile.ir import Pathway

    regions = [region(f"l{k}", [f"z.l{k - 1}" if k > 1 else "x0"], 8) for k in range(1, 10)]
    source = {8: 9, 5: 9, 2: 9, 7: 8, 6: 8, 4: 5, 3: 5, 1: 2}
    paths = [
        Pathway(f"l{s}->l{t}", f"l{s}", f"l{t}", "dense", "fixed", init="normal", flops=UNIT)
        for t, s in source.items()
    ]
    return plan_of(regions, paths)


@pytest.mark.parametrize("devices", ["any:5", "cpu:5", "a100:5", "h100:5", "h200:5"])
def test_the_waves_of_figure_1_have_a_device_for_each_region(devices: str) -> None:
    plan = bare(figure1(), devices)
    where = dict(assign(plan))
    assert [sorted(w) for w in plan.waves[1:]] == [["l2", "l5", "l8"], ["l1", "l3", "l4", "l6", "l7"]]
    assert [len({where[n] for n in wave}) for wave in plan.waves] == [1, 3, 5]


def test_conflict_free_parts_of_figure_1_exist() -> None:
    plan = bare(figure1(), "any:5")
    e = estimate(plan)
    where = consecutive(e, memory_of(e), conflict_table(e.waves_of), False)
    assert where is not None
    assert e.conflicts(where) == 0
    assert where == sorted(where)


# whole placements


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([(1, 1, 1), (1, 2), (1, 1)]))
def test_small_graphs_get_the_best_of_all_placements(seed: int, microbatches: int, speeds: tuple[float, ...]) -> None:
    plan = bare(dag(seed, 6), machines(*speeds), microbatches)
    e = estimate(plan)
    where = dict(assign(plan))
    mine = e.step_us([where[r.name] for r in plan.regions])
    best = min(e.step_us(w) for w in itertools.product(range(len(speeds)), repeat=6))
    assert best <= mine <= (1 + ABOUT) * best


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("speeds", [(1, 1, 1), (1, 2)])
def test_the_search_comes_near_the_best_of_all(
    seed: int, speeds: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclra_compile.placement.assign, "best_of_all", lambda e, room: None)
    plan = bare(dag(seed, 6), machines(*speeds), 3)
    e = estimate(plan)
    best = min(e.step_us(w) for w in itertools.product(range(len(speeds)), repeat=6))
    assert min(e.step_us(w) for w in candidates_for(e)) <= 1.1 * best


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 4), st.integers(1, 8))
def test_placement_is_whole_and_always_the_same(seed: int, length: int, count: int, microbatches: int) -> None:
    plan = bare(dag(seed, length), f"cpu:{min(count, length)}", microbatches)
    where = assign(plan)
    assert [n for n, _ in where] == [r.name for r in plan.regions]
    assert all(0 <= d < len(plan.devices) for _, d in where)
    assert assign(plan) == where


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(3, 10), st.integers(1, 4), st.integers(1, 4), st.integers(30, 110))
def test_memory_is_never_exceeded(seed: int, length: int, count: int, microbatches: int, percent: int) -> None:
    count = min(count, length)
    free = bare(dag(seed, length), machines(*[1.0] * count), microbatches)
    e = estimate(free)
    limit = max(e.needs(candidates_for(e)[0])) * percent // 100
    plan = bare(dag(seed, length), machines(*[1.0] * count, memory=limit), microbatches)
    try:
        where = dict(assign(plan))
    except PlacementError as error:
        assert [f.code for f in error.faults] == ["N005"]
        assert percent < 100
        return
    assert max(estimate(plan).needs([where[r.name] for r in plan.regions])) <= limit


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(3, 8), st.integers(1, 3), st.integers(1, 8))
def test_the_schedule_stays_within_what_one_microbatch_in_flight_needs(
    seed: int, length: int, count: int, microbatches: int
) -> None:
    plan = bare(dag(seed, length), machines(*[1.0] * count), microbatches)
    e = estimate(plan)
    limit = max(e.needs(candidates_for(e)[0]))
    made = arrange(dag(seed, length), machines(*[1.0] * count, memory=limit), Machine(microbatches=microbatches))
    assert made.placement.peak_bytes == peaks(made)
    assert max(made.placement.peak_bytes) <= limit


def test_a_slow_device_is_left_empty_where_that_is_faster() -> None:
    plan = bare(chain(6), machines(100.0, 0.001, 100.0), 8)
    assert set(dict(assign(plan)).values()) == {0, 2}


def test_the_score_decides() -> None:
    plan = bare(chain(4), machines(1.0, 1.0), 4)
    wanted = candidates_for(estimate(plan))[-1]
    names = [r.name for r in plan.regions]
    where = assign(plan, score=lambda regions: float([regions[n] for n in names] != list(wanted)))
    assert [d for _, d in where] == list(wanted)


def test_many_regions_on_many_devices_are_placed() -> None:
    plan = bare(chain(200), machines(*[1.0] * 64), 16)
    assert len(set(dict(assign(plan)).values())) == 64


# pins and ties


def shared(plan: Plan, *names: str) -> Plan:
    """The plan with one parameter shared among these regions."""
    return replace(
        plan, regions=tuple(replace(r, parameters=("shared",)) if r.name in names else r for r in plan.regions)
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 4), st.dictionaries(st.integers(0, 7), st.integers(0, 1), max_size=4))
def test_pins_are_kept(seed: int, count: int, wanted: dict[int, int]) -> None:
    plan = bare(dag(seed, 8), machines(*[1.0] * count), 2)
    where = dict(assign(plan, {f"r{k}": d for k, d in wanted.items()}))
    assert {k: where[f"r{k}"] for k in wanted} == wanted


def test_a_pin_by_name_glob_and_block_and_the_last_wins() -> None:
    plan = bare(chain(6), "cuda:3")
    plan = replace(plan, regions=tuple(replace(r, within=("tail",)) if r.name > "r3" else r for r in plan.regions))
    where = dict(assign(plan, {"r*": "cuda:1", "tail": "2", "r0": "h100:0"}))
    assert list(where.values()) == [0, 1, 1, 1, 2, 2]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sets(st.integers(0, 7), min_size=2, max_size=4))
def test_tied_weights_are_on_one_device(seed: int, tied: set[int]) -> None:
    plan = shared(bare(dag(seed, 8), machines(1.0, 1.0, 2.0), 3), *(f"r{k}" for k in tied))
    where = dict(assign(plan))
    assert len({where[f"r{k}"] for k in tied}) == 1


def test_contradictory_pins_of_tied_weights() -> None:
    plan = shared(bare(chain(5), machines(1.0, 1.0)), "r0", "r4")
    assert faults(plan, {"r0": 0, "r[34]": "d1"}) == [
        ("N007", "'r0' is pinned to d0 (by 'r0') and 'r4' to d1 (by 'r[34]'), but they share 'shared'",
         "pin both to d0, or leave one of the pins out")]  # fmt: skip


def test_pins_of_nothing_are_all_reported() -> None:
    plan = bare(chain(4), "cuda:2")
    assert faults(plan, {"r9": 0, "r1": "cuda:7", "r2": "cuda1"}) == [
        ("N006", "the pin 'r9' matches no region", "valid: r0, r1, r2, r3"),
        ("N006", "the pin 'r1' names device 'cuda:7', which is not among the 2", "the last is cuda:1 (number 1)"),
        ("N006", "the pin 'r2' names device 'cuda1', which is not among the 2",
         "did you mean 'cuda:1'?; or a number from 0 to 1"),
    ]  # fmt: skip


# what cannot be


def test_more_devices_than_regions() -> None:
    assert faults(bare(chain(4), "cpu:5")) == [
        ("N004", "5 devices are more than there is to place: the model has 4 regions",
         "ask for 4 devices, or for smaller regions (layers, or more groups)")]  # fmt: skip
    tied = shared(bare(chain(4), "cpu:4"), "r0", "r3")
    assert faults(tied)[0][1].endswith("the model has 4 regions, 3 apart from those that share weights")


def test_no_device() -> None:
    assert faults(replace(bare(chain(4), "cpu:1"), devices=()))[0][0] == "N001"


def test_settling_regions_are_on_one_device() -> None:
    plan = bare(chain(4), "cpu:2")
    settling = replace(plan, targets=(*plan.targets[:-1], Target("r0", "equilibrium", free_steps=1, nudged_steps=1)))
    assert faults(settling)[0][:2] == (
        "N008", "regions that settle together (rule equilibrium) have to be on one device, not on 2")  # fmt: skip


def test_what_would_fit_is_found() -> None:
    free = bare(chain(8), machines(1.0, 1.0), 1)
    eight = estimate(replace(free, devices=machines(*[1.0] * 8)))
    needed = max(eight.needs(range(8)))
    plan = bare(chain(8), machines(1.0, 1.0, memory=needed), 1)
    [(code, message, fix)] = faults(plan)
    assert code == "N005"
    assert message.startswith("the regions do not fit on 2 devices with ")
    said = [int(w) for w in fix.split() if w.isdigit()]
    assert fix.split("; or ")[0] == f"{said[0]} such devices fit"
    assign(bare(chain(8), machines(*[1.0] * said[0], memory=needed)))
    with pytest.raises(PlacementError):
        assign(bare(chain(8), machines(*[1.0] * (said[0] - 1), memory=needed)))


def test_microbatches_that_would_fit_are_found() -> None:
    free = bare(chain(2, batch=4096), machines(1.0))
    whole, parts = (max(estimate(bare(chain(2, batch=4096), machines(1.0), m)).needs([0, 0])) for m in (1, 4))
    limit = parts + 1
    assert limit < whole
    [(_, _, fix)] = faults(bare(free, machines(1.0, memory=limit)))
    assert "4 microbatches fit" in fix
    assign(bare(free, machines(1.0, memory=limit), 4))


def test_a_region_that_is_too_large_alone_is_named() -> None:
    [(_, message, _)] = faults(bare(chain(4), machines(1.0, 1.0, memory=100)))
    assert "region 'r0' alone takes" in message


def test_a_wirings_pin_is_shown_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("version: 1\npathways: [{from: output, to: all}]\nplacement:\n  fc*: 1\n  hed: 0\n")
    machine = Machine(devices=2).over(load_wiring(str(file)))
    with pytest.raises(PlacementError) as caught:
        arrange(chain(4), machine.named("float32"), machine)
    assert [(f.code, f.where and f.where.line) for f in caught.value.faults] == [("N006", 4), ("N006", 5)]
