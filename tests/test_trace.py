"""Recorded steps: every task once, on the clock of one process, in a file that viewers and `graph --trace` read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT
from torch import nn

import reclra_compile as rc
from reclra_compile.cli.main import main
from reclra_compile.cli.trace_view import TraceFile, Tracer
from reclra_compile.errors import UserError
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.runtime.recorder import Part, merged
from reclra_compile.simulate.measured import Taken, predicted_us, read_trace
from reclra_compile.simulate.retarget import retargeted
from reclra_compile.view.recorded import Recorded

DIGITS = ROOT / "examples" / "mlp_digits.py"


def program(**options: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(8, 6), torch.randint(3, (8,))
    make = rc.threaded if "on" in options else rc.compile
    return make(model, x, wiring="depth1", **options), x, y


def check(plan: Plan, taken: tuple[Taken, ...], microbatches: int) -> None:
    """Every task but X ran once for each microbatch, inside its step and on its device."""
    expected = Counter({(i, m): 1 for i, t in enumerate(plan.tasks) if t.kind != "X" for m in range(microbatches)})
    for one in taken:
        recorded = one.recorded
        assert recorded.source == "measured" and recorded.devices == tuple(d.name for d in plan.devices)
        assert Counter((s.task, s.microbatch) for s in recorded.spans) == expected
        assert all(0 <= s.start_us <= s.end_us <= recorded.end_us for s in recorded.spans)
        assert all(s.device == plan.tasks[s.task].device for s in recorded.spans)
        recorded.check(plan)


@pytest.mark.parametrize("options", [{}, {"devices": "cpu:2", "microbatches": 4}])
def test_each_task_runs_once_and_the_step_is_as_without(options: dict[str, Any]) -> None:
    made, x, y = program(**options)
    made.step(x, y)
    expected = [p.grad.clone() for p in made.parameters()]
    with made.recording() as recorder:
        for _ in range(2):
            made.zero_grad()
            made.step(x, y)
    assert all(torch.equal(p.grad, g) for p, g in zip(made.parameters(), expected, strict=True))
    made.step(x, y)
    taken = recorder.taken()
    assert [one.number for one in taken] == [1, 2] and taken[0].begun_us < taken[1].begun_us
    check(made.plan, taken, made.plan.schedule.microbatches)
    for one in taken:  # one process does one thing after the other
        assert all(a.end_us <= b.start_us for a, b in pairwise(one.recorded.spans))


def test_nothing_is_left_when_recording_ends_or_a_step_fails() -> None:
    made, x, y = program()
    plain = made._steps
    with made.recording() as recorder:
        with pytest.raises(Exception, match="dtype"):
            made.step(x, y + torch.nan)
        made.step(x, y)
    assert made._steps is plain and made.recorder is None
    assert len(recorder.taken()) == 1
    check(made.plan, recorder.taken(), 1)


def test_threads_are_recorded_side_by_side() -> None:
    made, x, y = program(microbatches=4, on=["cpu", "cpu"])
    try:
        made.step(x, y)
        with made.recording() as recorder:
            made.step(x, y)
        check(made.plan, recorder.taken(), 4)
    finally:
        made.close()


def test_a_loop_of_ones_own_is_recorded_from_its_forward_pass_to_the_end_of_backward() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(8, 6), torch.randint(3, (8,))
    model: Any = rc.attach(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), x, wiring="depth1")
    made = model.reclra.program
    with made.recording() as recorder:
        for _ in range(2):
            loss: Any = nn.functional.cross_entropy(model(x), y)
            loss.backward()
        model(x)  # and no backward
    assert made._steps is not None and not recorder._plain
    ran = [Counter(s.task for s in one.recorded.spans) for one in recorder.taken()]
    expected = {i: 1 for i, t in enumerate(made.plan.tasks) if t.kind not in "XL"}  # the loss is the loop's own
    assert ran == [expected, expected]


def test_clocks_of_other_hosts_are_set_by_when_all_met() -> None:
    plan = program(devices="cpu:2")[0].plan
    step = (100.0, 900.0, ((0, 0, 0, 200.0, 300.0),))
    late = (5100.0, 5950.0, ((2, 0, 1, 5300.0, 5400.0),))
    parts = [Part("a", (10.0, 20.0, 30.0), (step,)), Part("b", (5010.0, 5020.0, 5900.0), (late,))]
    (one,) = merged(plan, parts, 1, 7)
    assert (one.number, one.begun_us, one.recorded.end_us) == (7, 100.0, 850.0)
    assert [(s.device, s.start_us, s.end_us) for s in one.recorded.spans] == [(0, 100.0, 200.0), (1, 200.0, 300.0)]
    same = [parts[0], replace(parts[1], host="a")]  # which share a clock, whatever they read
    assert merged(plan, same, 1, 1)[0].recorded.spans[1].start_us == 5200.0
    assert merged(plan, [*parts, *parts], 2, 1)[0].recorded.devices[2] == "cpu:0, replica 2"


def written(folder: Path, **options: Any) -> tuple[Path, Plan]:
    made, x, y = program(**options)
    with made.recording() as recorder:
        for _ in range(3):
            made.step(x, y)
    recorder.write(folder / "t.json", len(x))
    return folder / "t.json", made.plan


def test_the_file_is_a_trace_for_viewers_and_a_recorded_step(tmp_path: Path) -> None:
    file, plan = written(tmp_path, devices="cpu:2", microbatches=2)
    data = json.loads(file.read_text(encoding="utf-8"))
    assert next(iter(data)) == "traceEvents"  # Perfetto ignores all that follows a key that it does not know
    recorded, trace = Recorded.read(file.read_text(encoding="utf-8")), read_trace(str(file))
    assert trace.recorded == recorded and trace.batch == 8
    assert sorted(trace.steps_us)[1] == recorded.end_us == trace.step_us
    work = [e for e in data["traceEvents"] if e["ph"] == "X" and e["cat"] != "step"]
    assert len(work) == 3 * len(recorded.spans)
    assert {e["name"] for e in work} == {t.id for t in plan.tasks if t.kind != "X"}
    steps = [e for e in data["traceEvents"] if e.get("cat") == "step"]
    assert [e["name"] for e in steps] == ["step 1", "step 2", "step 3"]
    for e in work:
        assert any(s["ts"] <= e["ts"] and e["ts"] + e["dur"] <= s["ts"] + s["dur"] + 0.01 for s in steps)
    sent, heard = (Counter(e["id"] for e in data["traceEvents"] if e["ph"] == p) for p in "sf")
    assert sent and sent == heard and set(sent.values()) == {1}


def test_a_trace_fits_its_plan_alone(tmp_path: Path) -> None:
    file, plan = written(tmp_path, devices="cpu:2", microbatches=2)
    trace = read_trace(str(file))
    assert trace.fits(plan) is plan
    assert trace.fits(plan.on(Machine(microbatches=2))).batch == 8
    larger = retargeted(plan, Machine(), 32)
    assert larger.batch == 32 and trace.fits(larger).batch == 8  # what is predicted is a step as it was measured
    with pytest.raises(UserError, match="V006"):
        trace.fits(replace(plan, tasks=plan.tasks[:-1]))
    assert trace.against(plan) == pytest.approx(trace.step_us / plan.simulate().makespan_us)
    assert predicted_us(program()[0].plan) is None  # of no device


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', "\udcff"])
def test_what_is_no_trace_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="V005"):
        read_trace(str(tmp_path / "t.json"))


def test_train_records_and_graph_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", str(DIGITS), "-w", "depth1", "--epochs", "1", "--batch-size", "256", "--devices", "cpu:2",
             "--one-process", "--run-dir", "runs", "--trace", "t.json"]  # fmt: skip
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "trace: t.json (4 steps, the median" in result.output and "× the prediction" in result.output
    assert [s["step"] for s in json.loads(Path("t.json").read_text())["otherData"]["steps"]] == [2, 3, 4, 5]
    result = CliRunner().invoke(main, ["graph", "runs/depth1/seed0/plan.txt", "--trace", "t.json", "--json"])
    told = json.loads(result.output)
    assert told["ratio"] == pytest.approx(told["measured_us"] / told["predicted_us"]) and told["picture"]
    result = CliRunner().invoke(main, ["graph", str(DIGITS), "-w", "depth2", "--trace", "t.json", "--json"])
    assert [e["code"] for e in json.loads(result.output)["errors"]] == ["V006"]


def test_a_run_without_steps_leaves_no_trace(tmp_path: Path) -> None:
    plan = program()[0].plan
    assert TraceFile(None).said(plan) is None
    file = tmp_path / "t.json"
    assert TraceFile(str(file)).said(plan) == "none, as no step was taken"
    before = TraceFile(str(file))
    written(tmp_path)
    assert str(before.said(plan)).startswith(f"{file} (3 steps, the median ")
    assert TraceFile(str(file)).said(plan) == "none, as no step was taken"  # it is an earlier run's


class Quiet:
    def start(self, *_: Any) -> None: ...

    def step(self, *_: Any) -> None: ...

    def epoch(self, *_: Any) -> None: ...


@pytest.mark.parametrize(
    ("asked", "begun", "steps", "found"),
    [((2, 5), 0, 9, [2, 3, 4, 5]), ((2, 5), 0, 3, [2, 3]), ((4, 9), 0, 3, [3]), ((2, 3), 10, 20, [12, 13])],
)
def test_which_steps_of_a_run_are_recorded(
    tmp_path: Path, asked: tuple[int, int], begun: int, steps: int, found: list[int]
) -> None:
    from types import SimpleNamespace

    made, x, y = program()
    settings = SimpleNamespace(epochs=1, batch_size=8)
    run: Any = SimpleNamespace(program=made, taken=begun, steps=steps, settings=settings)
    tracer, member = Tracer(Quiet(), tmp_path / "t.json", asked), Any
    tracer.start(member, run, [])  # type: ignore[arg-type]
    for _ in range(begun, steps):
        made.step(x, y)
        run.taken += 1
        tracer.step(member, run)  # type: ignore[arg-type]
    facts = json.loads((tmp_path / "t.json").read_text())["otherData"]
    assert [s["step"] for s in facts["steps"]] == found and made.recorder is None


@pytest.mark.parametrize("text", ["0", "5-2", "a", "1-", "-3", "1-2-3"])
def test_steps_that_are_none(text: str) -> None:
    result = CliRunner().invoke(main, ["train", str(DIGITS), "--trace-steps", text])
    assert result.exit_code == 2 and "no step or range of steps" in result.output


@pytest.mark.slow
def test_ranks_are_recorded_on_one_clock(tmp_path: Path) -> None:
    words = ["train", str(DIGITS), "-w", "depth1", "--epochs", "1", "--devices", "cpu:2", "--microbatches", "2",
             "--replicas", "2", "--run-dir", "runs", "--trace", "t.json", "--trace-steps", "3-4"]  # fmt: skip
    subprocess.run([sys.executable, "-m", "reclra_compile", *words], cwd=tmp_path, check=True, timeout=300)
    trace = read_trace(str(tmp_path / "t.json"))
    assert trace.recorded.devices == tuple(f"cpu:{d}, replica {r}" for r in (1, 2) for d in (0, 1))
    assert len(trace.steps_us) == 2 and trace.batch == 32
    plan = Plan.parse((tmp_path / "runs" / "depth1" / "seed0" / "plan.txt").read_text())
    trace.fits(plan)
    ran = Counter((s.task, s.device) for s in trace.recorded.spans)
    assert ran == {(i, r * 2 + t.device): 2 for i, t in enumerate(plan.tasks) if t.kind != "X" for r in (0, 1)}
    for s in trace.recorded.spans:  # a message is there only once it was sent
        if plan.tasks[s.task].kind == "R":
            posts = [p for p in trace.recorded.spans if plan.tasks[p.task].writes == plan.tasks[s.task].reads]
            (post,) = (p for p in posts if p.microbatch == s.microbatch)
            assert post.start_us < s.end_us
