"""Pipelines of equal stages: each schedule's bubble and memory are the published ones, and ours are the formulas."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reclra_compile.simulate.engine import run
from reclra_compile.simulate.ideal import groups, output_fed
from reclra_compile.simulate.interleaved import interleaved_lanes
from reclra_compile.simulate.pattern import lanes, peak_bytes
from reclra_compile.simulate.rivals import SPLIT, WHOLE, Rival, interleaved, pipeline
from reclra_compile.simulate.stages import Link, Stage, equal_stages

GRID = [(p, m) for p in (1, 2, 3, 4, 5, 8, 16, 33, 64) for m in (1, 2, 3, 4, 8, 16, 32)]
COSTS = [(1, 1, 1), (3, 3, 2), (2, 3, 1), (3, 2, 2)]  #: F, B, W; as published, W is not the largest


def idle(rival: Rival) -> tuple[float, float, float]:
    """Three ways to count what a device waits in a step: steps in a row, the whole step, its own first start to its
    last end; of the device that waits most.
    """
    done = rival.run()
    work = float(rival.pattern.work().max()) * rival.microbatches
    assert done.row_us == in_a_row(rival)
    return done.row_us - work, done.makespan_us - work, float(done.bubble_us[: rival.devices].max())


def in_a_row(rival: Rival) -> float:
    """What a second step adds to the first."""
    return rival.run(2).makespan_us - rival.run().makespan_us


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_gpipe_and_1f1b_wait_p_minus_one_times_f_b_and_w(name: str, cost: tuple[int, int, int], stages: int) -> None:
    f, b, w = cost
    for m in (1, 2, stages, 3 * stages):
        rival = pipeline(name, equal_stages(stages, Stage(f, b, w)), m)
        assert idle(rival) == ((stages - 1) * (f + b + w),) * 3
        assert max(rival.peak_bytes()) == (m if name == "gpipe" else min(m, stages))


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("cost", COSTS)
def test_zb_h1_waits_p_minus_one_times_f_b_less_w(cost: tuple[int, int, int], stages: int) -> None:
    f, b, w = cost
    for m in (stages, stages + 1, 3 * stages):
        rival = pipeline("zb_h1", equal_stages(stages, Stage(f, b, w)), m)
        assert idle(rival) == ((stages - 1) * (f + b - w),) * 3
        assert max(rival.peak_bytes()) == stages


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("cost", COSTS)
def test_zb_h2_waits_p_minus_one_times_f_b_less_two_w(cost: tuple[int, int, int], stages: int) -> None:
    """Counted on each device: the devices end one after the other, as they began, and so does the next step."""
    f, b, w = cost
    for m in (2 * stages - 1, 2 * stages, 4 * stages):
        rival = pipeline("zb_h2", equal_stages(stages, Stage(f, b, w)), m)
        period, _, own = idle(rival)
        assert period == own == (stages - 1) * (f + b - 2 * w)
        assert max(rival.peak_bytes()) == 2 * stages - 1
    assert (f, b, w) != (1, 1, 1) or period == 0


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_interleaved_waits_a_part_of_1f1b(devices: int, parts: int) -> None:
    for m in (devices, 2 * devices, 5 * devices):
        f, b, w = (parts * c for c in (2, 3, 2))  # of the whole device
        rival = interleaved(equal_stages(devices * parts, Stage(2, 3, 2)), devices, m)
        assert rival is not None
        assert idle(rival) == ((devices - 1) * (f + b + w) / parts,) * 3


def test_interleaved_order_is_that_of_the_published_figure() -> None:
    """4 devices, 2 parts, 8 microbatches: the last device's first passes (figure 4 of Narayanan et al. 2021)."""
    order = interleaved_lanes(2, 4, 8)
    assert order is not None
    text = " ".join(f"{m + 1}{'FB'[back]}{stage // 4}" for back, stage, m in zip(*order[3], strict=True))
    assert text.startswith("1F0 2F0 3F0 4F0 1F1 1B1 2F1 2B1 3F1 3B1 4F1 4B1 5F0 1B0 6F0 2B0 7F0 3B0 8F0 4B0 5F1 5B1")
    assert [int(lane.backward.sum()) for lane in order] == [16] * 4
    assert [int(lane.backward.argmax()) for lane in order] == [11, 9, 7, 5]


def test_interleaved_needs_whole_rounds() -> None:
    assert interleaved(equal_stages(8), 4, 9) is None
    assert interleaved(equal_stages(3), 4, 4) is None


@pytest.mark.parametrize(("stages", "m"), GRID)
def test_output_fed_stages_take_the_formula_exactly(stages: int, m: int) -> None:
    ours = run(output_fed(stages), m).makespan_us
    theirs = pipeline("1f1b", equal_stages(stages), m).run().makespan_us
    assert ours == 2 * m + stages - 1
    assert Fraction(ours) / Fraction(theirs) == Fraction(2 * m + stages - 1, 3 * (m + stages - 1))


@pytest.mark.parametrize(("stages", "m"), GRID)
def test_groups_take_the_formula_exactly(stages: int, m: int) -> None:
    ours = run(groups(stages), m).makespan_us
    theirs = pipeline("1f1b", equal_stages(stages), m).run().makespan_us
    assert Fraction(ours) / Fraction(theirs) == Fraction(3 * m + stages - 1, 3 * (m + stages - 1))
    waiting = run(groups(stages, waits_for_output=True), m).makespan_us
    assert 3 * m + stages - 1 <= waiting <= 3 * m + stages


@pytest.mark.parametrize(("stages", "m"), GRID)
def test_output_fed_stages_hold_half_of_1f1b(stages: int, m: int) -> None:
    pattern = output_fed(stages)
    ours = peak_bytes(pattern, list(lanes(pattern, m)), m)
    theirs = pipeline("1f1b", equal_stages(stages), m).peak_bytes()
    assert max(theirs) == min(m, stages)
    assert max(ours) == min(m, 1 + stages // 2)


def test_64_devices_and_16_microbatches_are_faster_in_no_more_memory() -> None:
    stages, m = 64, 16
    pattern = output_fed(stages)
    ours = run(pattern, m).makespan_us
    held = max(peak_bytes(pattern, list(lanes(pattern, m)), m))
    one, zero = (pipeline(name, equal_stages(stages), m) for name in ("1f1b", "zb_h1"))
    assert one.run().makespan_us / ours >= 2.4
    assert zero.run().makespan_us > ours
    assert held <= max(zero.peak_bytes())
    assert held <= max(one.peak_bytes())


@pytest.mark.parametrize(("stages", "m"), [(8, 64), (8, 15), (64, 16), (3, 1)])
def test_steps_in_a_row(stages: int, m: int) -> None:
    """Groups never wait, as ZB-H2 with 2p − 1 times the microbatches in flight; depth 1 waits for the pipeline."""
    zero = pipeline("zb_h2", equal_stages(stages), m)
    local = run(groups(stages), 2 * m, lanes(groups(stages), m, 2)).makespan_us - run(groups(stages), m).makespan_us
    assert local == run(groups(stages), m).row_us == 3 * m <= in_a_row(zero)
    assert (in_a_row(zero) == 3 * m) == (m >= 2 * stages - 1)
    assert run(output_fed(stages), m).row_us == 2 * m + stages - 1
    fed = output_fed(stages)
    one, two = (run(fed, k * m, lanes(fed, m, k, stale=True)).makespan_us for k in (1, 2))
    assert two - one == 2 * m


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 8), st.sampled_from(sorted(SPLIT | WHOLE)),
       st.lists(st.tuples(*[st.integers(0, 5)] * 4), min_size=5, max_size=5),
       st.sampled_from([0.0, 1e6, 4e6]))  # fmt: skip
def test_any_costs_and_links_take_at_least_the_work_and_the_chain(
    stages: int, m: int, name: str, costs: list[tuple[int, int, int, int]], rate: float
) -> None:
    made = [Stage(f, b, w, message_bytes=x) for f, b, w, x in costs[:stages]]
    links = (Link(rate, 0.5),) * stages
    found = pipeline(name, made, m, links).run().makespan_us
    assert found >= m * max(s.forward_us + s.input_us + s.weight_us for s in made)
    sent = sum(2 * links[0].occupied_us(s.message_bytes) + 1.0 for s in made[:-1])
    assert found >= sum(s.forward_us + s.input_us for s in made) + sent - 1e-9
