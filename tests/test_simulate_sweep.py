"""Sweeps: error pathways on equal parts come to the formulas, star messages to their links, and points add up."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from synthetic import UNIT, chain

import reclra_compile.cli.simulate_view as view
from reclra_compile.arrange import arrange
from reclra_compile.cli.main import main
from reclra_compile.ir import Device, Plan
from reclra_compile.machine import Machine
from reclra_compile.simulate.findings import findings
from reclra_compile.simulate.load import Load, load_of
from reclra_compile.simulate.plot import to_html, to_svg, write_sweep
from reclra_compile.simulate.stages import Link
from reclra_compile.simulate.sweep import NAMES, BreakEven, Grid, Point, break_evens, measured, points, sizes
from reclra_compile.simulate.wired import depth_one, depth_two, grouped

SMALL = Grid(devices=(1, 2, 4), microbatches=(1, 4), links=(1e8, 1e12), batches=(4, 64), parts=(1, 2, 4),
             wide_devices=(4, 16), wide_links=(0.0, 1e6), base=4, wide_microbatches=4)  # fmt: skip


def plan_of(length: int = 4, microbatches: int = 4) -> Plan:
    """Equal regions; one product of one microbatch takes a microsecond."""
    devices = (Device("d0", "unit", flops_per_s=UNIT / microbatches * 1e6),)
    return arrange(chain(length), devices, Machine(microbatches=microbatches))


def unit_load(parts: int, link: Link | None = None, message: float = 1.0, error: float = 1.0) -> Load:
    """`parts` equal parts with F = B = W = 1 µs, and pathways that cost nothing but messages."""
    return Load(
        parts, parts, parts, 2 * parts, 0, 0, 0, 0, 0, parts, 1, 1, message, error, error, parts, parts, 0, 0, 4,
        link or Link(),
    )  # fmt: skip


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 5, 8, 16, 31])
@pytest.mark.parametrize("m", [1, 2, 8, 16])
def test_equal_parts_come_to_the_formulas(devices: int, m: int) -> None:
    load = unit_load(devices)
    assert depth_one(load, devices, m).step_us() == 2 * m + devices - 1
    assert depth_two(load, devices, m).step_us() == 2 * m + devices - 1
    assert grouped(load, devices, m).step_us() == 3 * m + devices - 1


def test_the_star_of_errors_leaves_one_link() -> None:
    """At 1 µs a message to each of 15 devices depth 1 sends for 15 µs a microbatch, depth 2 for 3 and for 3 again."""
    link, devices, m = Link(1e6), 16, 32
    load = unit_load(devices, link, message=0.0, error=1.0)
    one, two = depth_one(load, devices, m), depth_two(load, devices, m)
    assert one.pattern.work().max() == 15
    assert two.pattern.work().max() == 6  # the output's device is the relay of its own part
    assert 15 * m <= one.step_us() <= 15 * m + 3 * devices
    assert two.step_us() < one.step_us() / 2


@pytest.mark.parametrize("layers", [1, 2, 6, 64])
@pytest.mark.parametrize("relayed", [0.0, 0.25, 4.0])
def test_no_work_is_negative_however_small_the_parts(layers: int, relayed: float) -> None:
    """The work of all parts together is that of the regions, whether parts are larger or smaller than a region."""
    load = replace(unit_load(layers), target_us=0.5, apply_us=1.0, learn_us=2.0, relayed_apply_us=relayed,
                   relayed_learn_us=2 * relayed, synapse_bytes=3.0, relayed_synapse_bytes=1.0)  # fmt: skip
    for devices in (1, 2, 3, 7, 64, 200):
        made = depth_two(load, devices, 4)
        assert made.pattern.duration.min() >= 0 and made.pattern.lag.min() >= 0
        relays = max(1, round(devices**0.5)) * min(1.0, layers / devices)
        errors = layers * (load.target_us + 1) + relays * 3.0 + (layers - relays) * 3 * relayed
        assert made.pattern.work()[:devices].sum() == pytest.approx(layers + errors)


def test_memory_is_what_is_in_flight() -> None:
    load = replace(unit_load(8), weight_bytes=80.0, synapse_bytes=5.0)
    held = load.activation_bytes / 8 + load.width_bytes
    assert depth_one(load, 8, 16).peak_bytes() == (80 + 5 * 8) * 4 / 8 + (1 + 4) * held
    assert grouped(load, 8, 16).peak_bytes() == (80 + 5 * 8) * 4 / 8 + held


def test_a_load_is_the_plan_added_up() -> None:
    plan = plan_of()
    load = load_of(plan, plan.batch, 4)
    assert (load.forward_us, load.input_us, load.weight_us, load.both_us) == (4, 3, 4, 7)
    assert load.width_bytes == 4 * 8 * plan.batch / 4 and load.error_bytes == load.width_bytes
    twice = load_of(plan, 2 * plan.batch, 4)
    assert twice.forward_us == 8 and twice.error_bytes == 2 * load.error_bytes
    wide = load_of(plan, plan.batch, 4, classes=80)
    assert wide.synapse_bytes == pytest.approx(10 * load.synapse_bytes) and wide.error_bytes == 10 * load.error_bytes
    assert wide.relayed_synapse_bytes == load.relayed_synapse_bytes


def test_measured_times_stay_in_the_load() -> None:
    plan = plan_of()
    slow = replace(plan, tasks=tuple(replace(t, us=5 * t.us) if t.kind == "F" else t for t in plan.tasks))
    for batch, parts in ((8, 4), (64, 1)):
        before, after = load_of(plan, batch, parts), load_of(slow, batch, parts)
        assert after.forward_us == 5 * before.forward_us and after.weight_us == before.weight_us


def test_every_schedule_is_at_every_place() -> None:
    ticks: list[int] = []
    found = list(points(plan_of(), SMALL, tick=lambda: ticks.append(0)))
    even = list(break_evens(plan_of(), SMALL, tick=lambda: ticks.append(0)))
    assert len(ticks) == sizes(SMALL)
    # two parts on each of 4 devices need rounds of as many microbatches: 1 and 4 come out even
    assert len(found) == len(NAMES) * (3 + 2 + 2 + 2) and len(even) == 4
    one = {p.schedule: p for p in found if p.panel == "devices" and p.devices == 1}
    assert one["1f1b"].speed == one["data_parallel"].speed == 1 and {p.unit for p in found} == {"us"}
    assert all(p.speed > 0 and p.peak_bytes > 0 and p.row_us <= p.step_us for p in found)


def test_points_of_a_device_without_rates_are_in_flops() -> None:
    plan = replace(plan_of(), devices=(Device(),))
    found = list(points(plan, replace(SMALL, devices=(1,), microbatches=(), links=(), batches=(4,))))
    assert {p.unit for p in found} == {"flops"}
    text = to_svg("FLOPs", found, [])
    assert re.search(r"links: [\d.]+ k?FLOPs a step in a row", text) and " µs" not in text


def test_slow_links_make_depth_two_pay_with_fewer_outputs() -> None:
    found = {(b.link_bytes_per_s, b.devices): b.classes for b in break_evens(plan_of(), SMALL)}
    slow = found[1e6, 16]
    assert slow is not None and all(slow <= (c or 2**20) for c in found.values())


def test_what_does_not_exist_is_left_out() -> None:
    assert measured("interleaved", unit_load(4), 4, 9) is None
    assert measured("zb_h2", unit_load(4), 4, 16) == (3 * 16 + 3, 3 * 16, 4 + 7 * 2)


def test_findings_say_where_others_are_as_fast() -> None:
    def point(schedule: str, m: int, speed: float) -> Point:
        return Point("microbatches", schedule, 8, m, 8, 0.0, 1.0, 1.0, 1.0, speed)

    made = [point("depth1", m, 1.0) for m in (1, 2, 4, 8)]
    made += [point("zb_h2", m, s) for m, s in ((1, 0.5), (2, 1.0), (4, 1.2), (8, 0.9))]
    made += [point("1f1b", m, 0.4) for m in (1, 2, 4, 8)]
    said = findings(made, [BreakEven(8, 0.0, 1000), BreakEven(16, 0.0, None)])
    assert said[0] == "microbatches: the fastest is depth 1 1 to 2, 8; ZB-H2 4 (microbatches)"
    assert "ZB-H2 2 to 4" in said[1] and "1F1B nowhere" in said[1]
    assert any("1,000 on 8, never on 16" in line for line in said)


@pytest.mark.parametrize("suffix", [".svg", ".html", ".png"])
def test_the_picture_is_written_with_its_points(suffix: str, tmp_path: Path) -> None:
    found, even = list(points(plan_of(), SMALL)), list(break_evens(plan_of(), SMALL))
    beside = write_sweep("a <sweep>", found, even, str(tmp_path / f"sweep{suffix}"))
    data = json.loads(Path(beside).read_text())
    assert len(data["points"]) == len(found) and len(data["break_even"]) == len(even) and data["findings"]
    if suffix == ".svg":
        root = ElementTree.parse(tmp_path / "sweep.svg").getroot()
        dots = [e for e in root.iter() if e.tag.endswith("circle")]
        assert len(dots) == len(found) + 3 * len(NAMES) + sum(b.classes is not None for b in even)
    assert "<sweep>" not in to_svg("a <sweep>", found, even) and "<sweep>" not in to_html("a <sweep>", found, even)


def test_lines_stop_at_gaps() -> None:
    """Nothing is drawn where depth 2 never wins, between devices where it does."""
    even = [BreakEven(p, 0.0, c) for p, c in ((2, 100), (4, 200), (8, None), (16, 300), (32, 400))]
    svg = to_svg("gaps", [], even)
    [line] = re.findall(r'<path class="l0" d="([^"]+)" stroke-width="2.6" stroke-linejoin', svg)
    assert re.sub(r"[^ML]", "", line) == "MLML"
    none = to_svg("gaps", [], [BreakEven(2, 0.0, None)])
    assert "free links: never" in none and "nan" not in svg + none


def test_the_command_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "Grid", lambda: SMALL)
    (tmp_path / "net.plan").write_text(str(plan_of()))
    result = CliRunner().invoke(main, ["simulate", str(tmp_path / "net.plan"), "--sweep", str(tmp_path / "s.html")])
    assert result.exit_code == 0, result.output
    assert "at least as fast as depth 1" in result.output and (tmp_path / "s.json").exists()
    wrong = CliRunner().invoke(main, ["simulate", str(tmp_path / "net.plan"), "--sweep", "s.gif"])
    assert wrong.exit_code == 2 and "error[V002]" in wrong.output
