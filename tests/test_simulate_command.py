"""`reclra-compile simulate`: reports, comparisons, traces, timelines, and mistakes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT
from rich.console import Console
from synthetic import UNIT, chain

from reclra_compile.arrange import arrange
from reclra_compile.cli.main import main
from reclra_compile.cli.tables import table
from reclra_compile.errors import Notice, PlanError
from reclra_compile.ir import Device, Plan
from reclra_compile.machine import Machine
from reclra_compile.simulate.chart import MOST_BARS, MOST_LANES, plan_chart, rival_chart
from reclra_compile.simulate.compare import TITLES, compare, names_of, rival_of
from reclra_compile.simulate.costs import Prices, stages
from reclra_compile.simulate.events import simulate
from reclra_compile.simulate.replicas import data_parallel, rounds_of
from reclra_compile.simulate.retarget import rebatched, retargeted
from reclra_compile.simulate.stages import Link, Stage, equal_stages
from reclra_compile.simulate.timeline import ticks, to_html, to_svg
from reclra_compile.simulate.trace import trace_events


def made_for(
    length: int, count: int, microbatches: int, wiring: str = "depth1", link: float = 0.0, batch: int = 8
) -> Plan:
    """A chain on equal devices; one product of one microbatch takes a microsecond."""
    rate = UNIT / microbatches * 1e6
    devices = tuple(Device(f"d{k}", "unit", flops_per_s=rate, link_bytes_per_s=link) for k in range(count))
    return arrange(chain(length, wiring, batch), devices, Machine(microbatches=microbatches))


@pytest.fixture
def plan_file(tmp_path: Path) -> str:
    file = tmp_path / "four.plan"
    file.write_text(str(made_for(8, 4, 8)))
    return str(file)


def call(*words: str) -> Result:
    result = CliRunner().invoke(main, ["simulate", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_report_has_times_and_memory_of_each_device(plan_file: str) -> None:
    result = call(plan_file)
    assert result.exit_code == 0, result.output
    step = simulate(made_for(8, 4, 8))
    assert f"one step: {step.makespan_us:.3g} µs, devices busy {step.utilisation:.0%}" in result.output
    rows = re.findall(r"^(d\d) +unit +(\d+) µs +(\d+)% +(\d+) µs", result.output, re.MULTILINE)
    assert [name for name, *_ in rows] == ["d0", "d1", "d2", "d3"]
    for (_, busy, _, waits), wanted in zip(rows, step.busy_us, strict=True):
        assert float(busy) == wanted and float(waits) == step.makespan_us - wanted


def test_all_schedules_stand_beside_the_plan(plan_file: str) -> None:
    data = json.loads(call(plan_file, "--compare", "all", "--json").output)
    found = {c["name"]: c for c in data["compared"]}
    assert list(found) == list(TITLES)
    # a stage of two equal regions: F = 2, B and W 4, but the first stage's input gradient is 1 shorter
    assert found["one_device"]["step_us"] == 8 * (8 + 15)
    assert found["1f1b"]["step_us"] == 6 * (8 + 4 - 1) - 1 == found["gpipe"]["step_us"]
    assert found["1f1b"]["ratio"] == pytest.approx(found["1f1b"]["row_us"] / data["row_us"])
    assert found["zb_h2"]["row_us"] == 6 * 8
    assert found["data_parallel"]["step_us"] == 8 * (8 + 15) / 4
    text = call(plan_file, "-c", "1f1b,zero_bubble").output
    assert "1F1B" in text and "ZB-H1" in text and "ZB-H2" in text and "GPipe" not in text


@pytest.mark.parametrize(("count", "microbatches"), [(2, 2), (3, 5), (4, 8), (8, 16)])
def test_backprop_as_a_wiring_takes_what_1f1b_takes(count: int, microbatches: int) -> None:
    """The compiler's own pipeline of the backprop wiring and the published schedule come to the same step."""
    plan = made_for(count, count, microbatches, "backprop")
    rival = compare(plan, ["1f1b"])[0]
    assert simulate(plan).makespan_us == rival.step_us == 3 * (microbatches + count - 1) - 1


def test_more_devices_are_taken_without_the_model(plan_file: str) -> None:
    data = json.loads(call(plan_file, "--devices", "h100:2", "--microbatches", "4", "--batch", "64", "--json").output)
    assert data["batch"] == 64 and data["microbatches"] == 4
    assert [d["profile"] for d in data["devices"]] == ["h100", "h100"]
    assert all(d["memory_bytes"] for d in data["devices"])
    same = json.loads(call(plan_file, "--microbatches", "2", "--json").output)
    assert [d["name"] for d in same["devices"]] == ["d0", "d1", "d2", "d3"] and same["microbatches"] == 2


def test_what_is_not_asked_for_stays() -> None:
    plan = made_for(8, 4, 8)
    assert retargeted(plan, Machine()) is plan
    other = retargeted(plan, Machine(microbatches=2))
    assert other.devices == plan.devices and other.schedule.microbatches == 2
    stale = retargeted(plan, Machine(staleness=1))
    assert stale.schedule.microbatches == 8 and stale.schedule.staleness == 1
    assert retargeted(stale, Machine(microbatches=4)).schedule.staleness == 1


def test_a_batch_of_another_size_is_in_proportion_but_for_the_weights() -> None:
    plan = chain(3, batch=8)
    plan = replace(plan, regions=tuple(replace(r, forward_bytes=1000, parameter_sizes=(256,)) for r in plan.regions))
    twice = rebatched(plan, 16)
    assert [r.forward_flops for r in twice.regions] == [2 * r.forward_flops for r in plan.regions]
    assert [r.forward_bytes for r in twice.regions] == [256 + 2 * 744] * 3
    assert [t.flops for t in twice.tasks] == [2 * t.flops for t in plan.tasks]
    assert rebatched(twice, 8) == plan


def test_mistakes_are_said_together(plan_file: str) -> None:
    result = call(plan_file, "--devices", "0", "-c", "1f1b,gpip", "--timeline", "step.pdf")
    assert result.exit_code == 2
    assert all(f"error[{code}]" in result.output for code in ("N001", "S002", "V002"))
    assert "did you mean 'gpipe'?" in result.output
    gone = call("nowhere.plan")
    assert gone.exit_code == 2 and "error[P013]" in gone.output
    fine = call(plan_file, "--batch", "4")
    assert fine.exit_code == 2 and "error[S004]: 4 samples cannot be cut into 8 microbatches" in fine.output
    assert "--microbatches 4" in fine.output and "--batch 8" in fine.output
    many = call(plan_file, "--devices", "9")
    assert many.exit_code == 2 and "error[N004]" in many.output


@pytest.mark.parametrize(("old", "new", "code"), [
    (r" us=1\.0", " us=-5000.0", "P112"), (r" device=1", " device=7", "P103"), (r"batch=8", "batch=0", "P109"),
    (r"peak_bytes=\[\d+", "peak_bytes=[1", "P108"),
])  # fmt: skip
def test_edited_plans_are_verified(old: str, new: str, code: str, plan_file: str) -> None:
    text, many = re.subn(old, new, Path(plan_file).read_text(), count=1)
    assert many == 1
    Path(plan_file).write_text(text)
    for more in ((), ("--batch", "16")):
        result = call(plan_file, *more)
        assert result.exit_code == 2 and f"error[{code}]" in result.output


def test_rules_of_ones_own_are_taken_as_stated(plan_file: str) -> None:
    Path(plan_file).write_text(Path(plan_file).read_text().replace("rule=lra", "rule=sign_step"))
    assert call(plan_file).exit_code == 0


def test_a_plan_for_no_devices_has_no_times() -> None:
    with pytest.raises(PlanError, match="S003"):
        retargeted(chain(4), Machine())
    assert simulate(retargeted(chain(4), Machine(devices="any:2"))).makespan_us > 0


def test_names_are_no_markup(tmp_path: Path) -> None:
    file = tmp_path / "a.plan"
    for name in ("a[/b]", "run[v2]"):
        file.write_text(str(replace(made_for(4, 2, 2), name=name, model=f"Net{name}")))
        assert f"{name} on Net{name}: batch 8" in call(str(file), "--compare", "all").output
    shown = Console(file=io.StringIO(), width=80)
    shown.print(table("run[v2]", [("a[/b]", "text"), ("[red]", "text")], [("[x]", "[/]")], None, None))
    assert isinstance(shown.file, io.StringIO)
    assert all(text in shown.file.getvalue() for text in ("run[v2]", "a[/b]", "[red]", "[x]", "[/]"))


def test_times_without_rates_are_flops(plan_file: str) -> None:
    result = call(plan_file, "--devices", "any:2", "--compare", "1f1b")
    assert re.search(r"one step: [\d.]+ [kM]?FLOPs,", result.output)
    assert not re.search(r"\d (µs|ms|s)\b", result.output)
    assert json.loads(call(plan_file, "--devices", "any:2", "--json").output)["unit"] == "flops"
    assert json.loads(call(plan_file, "--json").output)["unit"] == "us"


def test_no_file_overwrites_another(plan_file: str, tmp_path: Path) -> None:
    before = Path(plan_file).read_text()
    json_file, svg = str(tmp_path / "out.json"), str(tmp_path / "out.svg")
    held = tmp_path / "held.svg"
    held.write_text(before)
    for words in (
        (plan_file, "--trace", json_file, "--sweep", svg), (plan_file, "--timeline", svg, "--sweep", svg),
        (plan_file, "--trace", plan_file), (str(held), "--timeline", str(tmp_path / "." / "held.svg")),
    ):  # fmt: skip
        result = call(*words)
        assert result.exit_code == 2 and "error[S005]" in result.output and "would overwrite" in result.output
    assert held.read_text() == before == Path(plan_file).read_text() and not Path(json_file).exists()


def test_warnings_of_the_plan_are_said(plan_file: str) -> None:
    Path(plan_file).write_text(str(replace(made_for(8, 4, 8), warnings=(Notice("less than a sample [each]", "N101"),))))
    assert "warning[N101]: less than a sample [each]" in call(plan_file).output
    report = json.loads(call(plan_file, "--json").output)
    assert (report["warnings"], report["warning_codes"]) == (["less than a sample [each]"], ["N101"])
    assert "warning" not in call(plan_file, "--batch", "64").output


def test_names_of_schedules() -> None:
    assert names_of("zero-bubble, GPipe") == ("gpipe", "zb_h1", "zb_h2")
    assert names_of("all") == tuple(TITLES)


def test_schedules_that_do_not_exist_say_why() -> None:
    found = {c.name: c for c in compare(made_for(6, 4, 8), ("interleaved", "1f1b"))}
    assert not found["interleaved"].possible and "6 regions" in found["interleaved"].note
    rounds = compare(made_for(8, 4, 9), ("interleaved",))[0]
    assert not rounds.possible and "9 microbatches" in rounds.note


def test_prices_follow_the_times_that_the_plan_states() -> None:
    """Where a plan's times were measured, backprop's are scaled by as much, region by region."""
    plan = made_for(4, 2, 1)
    slow = replace(plan, tasks=tuple(
        replace(t, us=t.us * (3 if t.kind == "U" else 2)) if t.subject == "r1" else t for t in plan.tasks
    ))  # fmt: skip
    before, after = (Prices(p).of(p.regions[1], p.devices[0]) for p in (plan, slow))
    assert (before.forward_us, before.input_us, before.weight_us, before.both_us) == (1, 1, 1, 2)
    assert (after.forward_us, after.input_us, after.weight_us, after.both_us) == (2, 3, 3, 6)
    first = Prices(plan).of(plan.regions[0], plan.devices[0])
    assert (first.input_us, first.both_us) == (0, 1), "nobody needs the gradient of the model's input"


def test_stages_are_cut_where_the_longest_is_shortest() -> None:
    plan = made_for(7, 1, 1)
    made = stages(plan, 3, plan.devices)
    assert [s.forward_us for s in made] == [3, 2, 2]  # the first region has no input gradient
    assert [s.message_bytes for s in made] == [4 * 8 * 8, 4 * 8 * 8, 0]
    fast = (*plan.devices, replace(plan.devices[0], flops_per_s=plan.devices[0].flops_per_s * 6))
    assert [s.gradient_bytes for s in stages(plan, 2, fast)] == [256, 6 * 256]


def test_the_inputs_of_the_batch_count_where_they_are_read() -> None:
    plan = replace(made_for(4, 2, 2), inputs=(("x0", (50_000,), "float32"),))
    again = replace(plan.regions[2], inputs=(*plan.regions[2].inputs, "x0"))
    both = replace(plan, regions=(*plan.regions[:2], again, plan.regions[3]))
    batch, weights = 4 * 50_000 * 8, 4 * 256
    assert [s.static_bytes for s in stages(plan, 4, plan.devices)] == [batch + weights, *[weights] * 3]
    assert [s.static_bytes for s in stages(both, 2, plan.devices)] == [batch + 2 * weights] * 2
    assert sum(s.static_bytes for s in stages(both, 4, plan.devices[:1])) == batch + 4 * weights, "one device, one copy"
    found = {c.name: c.peak_bytes for c in compare(plan, ("one_device", "data_parallel"))}
    assert found["one_device"] > batch > found["data_parallel"] > batch / 2


def test_values_that_skip_stages_are_relayed() -> None:
    plan = made_for(4, 1, 1)
    skipping = replace(plan.regions[3], inputs=(*plan.regions[3].inputs, "z.r0"))
    plan = replace(plan, regions=(*plan.regions[:3], skipping))
    assert [s.message_bytes for s in stages(plan, 4, plan.devices)] == [256, 512, 512, 0]


def test_replicas_hide_sums_behind_the_backward_pass() -> None:
    made = equal_stages(4, Stage(gradient_bytes=1e6))
    assert data_parallel(made, 1, 4).step_us == 4 * 12
    assert data_parallel(made, 4, 1).step_us == 12
    # 1.5 MB at 1.5 MB in a microsecond: the last stage's sum is what is seen; at a tenth, all four follow the first B
    assert data_parallel(made, 4, 1, Link(1.5e12)).step_us == 12 + 1
    assert data_parallel(made, 4, 1, Link(1.5e11)).step_us == 4 + 2 + 4 * 10
    assert data_parallel(made, 4, 3, Link(1.5e11)).step_us == 2 * 12 + 4 + 2 + 4 * 10, "sums follow the last round"
    assert [rounds_of(4, m) for m in (1, 4, 5, 8)] == [1, 1, 2, 2]
    assert data_parallel(made, 4, 1, Link(0, 1)).step_us == 4 + 2 + 4 * 6, "6 hops each"


def test_the_trace_holds_every_task_and_message(plan_file: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    assert call(plan_file, "--trace", str(file)).exit_code == 0
    data = json.loads(file.read_text())
    events, plan = data["traceEvents"], made_for(8, 4, 8)
    work = [e for e in events if e["ph"] == "X"]
    assert len(work) == 8 * sum(t.us > 0 for t in plan.tasks if t.kind not in "PRX")
    assert {e["pid"] for e in work} == {0, 1, 2, 3}
    assert max(e["ts"] + e["dur"] for e in work) == data["otherData"]["step_us"] == simulate(plan).makespan_us
    sent, received = ([e for e in events if e["ph"] == ph] for ph in "sf")
    assert {e["id"] for e in sent} == {e["id"] for e in received} and len(sent) == len(received) > 0
    by_id = {e["id"]: e["ts"] for e in sent}
    assert all(e["ts"] >= by_id[e["id"]] for e in received)


def test_long_traces_say_what_is_missing(monkeypatch: pytest.MonkeyPatch, plan_file: str, tmp_path: Path) -> None:
    monkeypatch.setattr("reclra_compile.simulate.trace.MOST_EVENTS", 300)
    result = call(plan_file, "--trace", str(tmp_path / "t.json"))
    assert re.search(r"trace of the first \d of 8 microbatches written", result.output)


def test_messages_on_slow_links_are_on_the_link_thread() -> None:
    step = simulate(made_for(4, 4, 2, link=1e8))
    assert any(e["ph"] == "X" and e["tid"] == 1 and e["name"].startswith("P ") for e in trace_events(step, 2))


def test_the_timeline_draws_every_device_and_schedule(plan_file: str, tmp_path: Path) -> None:
    for name in ("step.svg", "step.html"):
        assert call(plan_file, "-c", "all", "--timeline", str(tmp_path / name)).exit_code == 0
    ElementTree.parse(tmp_path / "step.svg")
    svg, page = (tmp_path / "step.svg").read_text(), (tmp_path / "step.html").read_text()
    for text in (svg, page):
        assert all(f">{d}</text>" in text for d in ("d0", "d1", "d2", "d3", "device 3"))
        assert all(f">backprop, {TITLES[n]}</text>" in text for n in ("gpipe", "1f1b", "interleaved", "zb_h1", "zb_h2"))
    assert "http:" not in re.sub(r'xmlns="http://www.w3.org/2000/svg"', "", page) and "https:" not in page
    assert "prefers-color-scheme:dark" in svg


def test_bars_are_the_work_of_the_devices() -> None:
    step = simulate(made_for(8, 4, 8, link=1e9))
    chart = plan_chart(step)
    for d in range(4):
        own = [b for b in chart.bars if b.lane == d and b.kind != 6]
        assert sum(b.end_us - b.start_us for b in own) == pytest.approx(step.busy_us[d])
    rival = rival_of(step.plan, "1f1b")
    assert rival is not None
    drawn = rival_chart(rival, "1F1B")
    assert drawn.makespan_us == rival.run().makespan_us and max(b.end_us for b in drawn.bars) == drawn.makespan_us


def test_large_steps_are_drawn_in_part_and_say_so() -> None:
    chart = plan_chart(simulate(made_for(40, 40, 200)))
    assert len(chart.lanes) == MOST_LANES and len(chart.bars) <= MOST_BARS
    assert "devices 0–11 and 28–39 of 40" in chart.note and "% of the step" in chart.note
    assert chart.note in to_svg([chart])
    assert len(to_html([chart])) < 3_000_000


def test_what_is_cut_off_does_not_look_idle() -> None:
    """Lanes end at a jagged edge where a step is cut off, and only there."""
    made = plan_chart(simulate(made_for(4, 2, 8)))
    cut = replace(made, shown_us=made.makespan_us / 4, unit="flops")
    for draw in (to_svg, to_html):
        text = draw([made, cut])
        root = ElementTree.fromstring(re.sub(r"(?s)^.*?(<svg.*</svg>).*$", r"\1", text))
        [torn] = [e for e in root.iter() if e.get("class") == "torn"]
        [cover] = [e for e in root.iter() if e.tag.endswith("rect") and e.get("class") == "ground" and e.get("x")]
        lane = next(e for e in root.iter() if e.get("class") == "lane")
        x, width = float(cover.attrib["x"]), float(cover.attrib["width"])
        left, whole = float(lane.attrib["x"]), float(lane.attrib["width"])
        assert x == pytest.approx(left + whole / 4, abs=0.02) and x + width == pytest.approx(left + whole, abs=0.02)
        assert torn.attrib["d"].startswith(f"M{cover.attrib['x']} ")
        assert re.search(r"one step takes [\d.]+ µs<", text) and re.search(r"one step takes [\d.]+ FLOPs<", text)
    assert 'class="torn"' not in to_svg([made])


def test_names_cannot_become_code() -> None:
    plan = replace(made_for(2, 2, 2), name='<script>alert("x")</script>')
    chart = plan_chart(simulate(plan))
    assert "<script>alert" not in to_svg([chart]) and to_html([chart]).count("<script") == 2


def test_ticks_are_round() -> None:
    assert ticks(95.0) == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert ticks(0.3)[-1] == pytest.approx(0.3)


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys, reclra_compile.simulate.engine, reclra_compile.simulate.compare, reclra_compile.simulate.retarget,"
        "reclra_compile.simulate.timeline, reclra_compile.simulate.trace, reclra_compile.cli.simulate_view;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
