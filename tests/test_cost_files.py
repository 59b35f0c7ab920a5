"""Files of measured times: what they hold, every fault of one, whose they are, and the commands around them."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from reclra_compile.cli.main import main
from reclra_compile.compiler import plan_for
from reclra_compile.cost.files import check_of, is_measured, keep, kept, measured_dict, read_measured, write_measured
from reclra_compile.cost.fit import Line
from reclra_compile.cost.lookup import priced
from reclra_compile.cost.measured import Measured, TaskTime, host, time_of, work_of
from reclra_compile.errors import CostError, PlacementError
from reclra_compile.ir import Device, Plan, Task
from reclra_compile.machine import Machine
from reclra_compile.placement.devices import parse_devices
from reclra_compile.placement.profiles import read_profile
from reclra_compile.placement.times import task_us
from reclra_compile.simulate.retarget import retargeted

HERE = Device("cpu", "measured", 4e10, 8e9, 0, 3e9, 20.0, 25.0)
TINY = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 3))
example_inputs = torch.rand(8, 5)
"""


def mlp(width: int = 7) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, 3))


@functools.cache
def plan(wiring: str = "depth1", width: int = 7, batch: int = 8) -> Plan:
    return plan_for(mlp(width), torch.rand(batch, 5), wiring)


def measured(of: Plan) -> Measured:
    """Times that are easy to tell: task k takes 100 k + samples alone, and twice that apart."""
    tasks = [t for t in of.tasks if t.kind not in "XPR"]
    times = {
        t.id: TaskTime(t.flops, t.bytes, Line(100.0 * k, 1.0), Line(200.0 * k, 2.0)) for k, t in enumerate(tasks)
    }
    return Measured(of.fingerprint, work_of(of), of.model, of.name, of.batch, (8, 4), HERE, host(), "cpu", 1, "2.13.0",
                    "float32", {8: 1234.5, 4: 700.0}, times)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reclra-compile" / "times"


# ------------------------------------------------------------------ files


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    write_measured(measured(plan()), file)
    assert read_measured(file) == measured(plan())
    assert is_measured(file)
    assert os.listdir(tmp_path) == ["here.json"]  # no half a file beside it


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(json.dumps(measured_dict(measured(plan()))))
    change(data)
    return json.dumps(data)


FAULTS: dict[str, tuple[str, str, list[str]]] = {
    "not JSON": ("{", "C001", ["not JSON"]),
    "a list": ("[]", "C001", ["does not hold measured times"]),
    "a file of devices": ('{"device": {"flops_per_s": 1e9}}', "C001", ["does not hold measured times"]),
    "another version": (edited(lambda d: d.update(version=9)), "C002", ["version 9"]),
    "no fingerprint": (edited(lambda d: d.pop("fingerprint")), "C003", ["'fingerprint' is missing"]),
    "batch of text": (edited(lambda d: d.update(batch="8")), "C003", ["'batch' is not a whole number"]),
    "no samples": (edited(lambda d: d.update(samples=[0])), "C003", ["'samples'"]),
    "a negative step": (edited(lambda d: d["step_us"].update({"8": -1})), "C003", ["'step_us.8'"]),
    "a negative rate": (edited(lambda d: d["device"].update(bytes_per_s=-1)), "C003", ["'device.bytes_per_s'"]),
    "no rate": (edited(lambda d: d["device"].pop("flops_per_s")), "C003", ["'device.flops_per_s' is missing"]),
    "not a number": (edited(lambda d: d["device"].update(task_us=float("nan"))), "C003", ["'device.task_us'"]),
    "a task of text": (edited(lambda d: d["tasks"].update({"F 0": "fast"})), "C003", ["'tasks.F 0' is not a mapping"]),
    "three times": (edited(lambda d: d["tasks"]["F 0"].update(alone_us=[1, 2, 3])), "C003", ["'tasks.F 0.alone_us'"]),
    "nested too deeply": ("[" * 100_000, "C001", ["nested too deeply"]),
    "a batch of nothing": (edited(lambda d: d.update(batch=0)), "C003", ["'batch' is not a whole number from 1 on"]),
    "another kind": (edited(lambda d: d["device"].update(kind="cpu")), "C003", ["'device.kind' is not \"measured\""]),
    "two faults": (
        edited(lambda d: (d.pop("model"), d["tasks"]["F 2"].pop("flops"))), "C003",
        ["'model' is missing", "'tasks.F 2.flops' is missing"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_a_file_is_named_with_the_file(name: str, tmp_path: Path) -> None:
    text, code, messages = FAULTS[name]
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(CostError) as error:
        read_measured(file)
    assert [f.code for f in error.value.faults] == [code] * len(messages)
    for fault, message in zip(error.value.faults, messages, strict=True):
        assert message in fault.message
        assert fault.where is not None and fault.where.file == str(file)
        assert "reclra-compile profile" in fault.fix


def test_measured_times_are_known_by_their_format_wherever_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "sorted.json"
    file.write_text(json.dumps(measured_dict(measured(plan())), sort_keys=True))
    assert is_measured(file) and read_profile(str(file)) == (HERE,)
    file.write_text(json.dumps({"device": {"flops_per_s": 1e9}, "format": "other times"}))
    assert not is_measured(file)
    with pytest.raises(PlacementError, match="its format is 'other times'"):
        read_profile(str(file))
    file.write_text("[" * 100_000)
    with pytest.raises(PlacementError, match="N003"):
        read_profile(str(file))


def test_a_link_to_nowhere_in_the_cache_is_passed_over(cache: Path) -> None:
    keep(measured(plan()))
    for work in ("w0", work_of(plan())):
        cache.joinpath(f"{plan().fingerprint}-{work}-0.json").symlink_to(cache / "gone.json")
    assert kept(plan(), host(), "float32").samples == (8, 4)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CostError, match="C001"):
        read_measured(tmp_path / "none.json")
    assert not is_measured(tmp_path / "none.json")


# ------------------------------------------------------------------ whose times they are


def test_times_are_kept_by_model_wiring_and_machine(cache: Path) -> None:
    one, two = plan("depth1"), plan("depth2")
    file = keep(measured(one))
    assert file is not None and file.parent == cache
    keep(replace(measured(one), threads=2))
    keep(measured(two))
    assert len(list(cache.iterdir())) == 3
    assert kept(two, host(), "float32") == measured(two)
    os.utime(file, (2e9, 2e9))
    assert kept(one, host(), "float32").threads == 1  # the newest


def test_without_times_the_command_to_run_is_named() -> None:
    with pytest.raises(CostError, match=r"C005.*\n.*reclra-compile profile MODEL --wiring depth1") as error:
        kept(plan(), host(), "float32")
    assert "other wirings" not in str(error.value)
    keep(measured(plan("depth2")))
    with pytest.raises(CostError, match=r"C005.*of other wirings"):
        kept(plan(), host(), "float32")


def test_times_of_another_machine_or_precision_are_not_taken() -> None:
    keep(measured(plan()))
    for here, dtype in (("another", "float32"), (host(), "bfloat16")):
        with pytest.raises(CostError, match="C005"):
            kept(plan(), here, dtype)


def test_the_type_of_device_that_is_asked_for_counts() -> None:
    own = plan()
    file = keep(measured(own))
    newer = keep(replace(measured(own), device=replace(HERE, name="cuda"), processor="some GPU"))
    assert file is not None and newer is not None and file != newer
    os.utime(newer, (2e9, 2e9))
    names = {asked: priced(own, Machine(devices=asked, profile="measured"), "float32")[1][0].name
             for asked in (1, "cpu:2", "cuda:2")}  # fmt: skip
    assert names == {1: "cuda:0", "cpu:2": "cpu:0", "cuda:2": "cuda:0"}
    newer.unlink()
    with pytest.raises(CostError, match=r"C005.*on cuda here\n.*--device cuda"):
        priced(own, Machine(devices="cuda:2", profile="measured"), "float32")


def test_times_of_another_model_are_refused(cache: Path) -> None:
    other, own = plan(width=9), plan()
    file = keep(measured(other))
    assert file is not None
    place = cache / f"{own.fingerprint}-{work_of(own)}-x.json"
    file.rename(place)
    with pytest.raises(CostError, match="C004") as error:
        kept(own, host(), "float32")
    assert error.value.faults[0].where is not None and error.value.faults[0].where.file == str(place)
    with pytest.raises(CostError, match="C004"):
        check_of(measured(plan("depth2")), own, "x")


def test_no_cache_folder_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert keep(measured(plan())) is None
    with pytest.raises(CostError, match="C005"):
        kept(plan(), host(), "float32")


def test_what_a_wiring_asks_for_does_not_depend_on_the_batch_or_the_devices() -> None:
    own = plan()
    assert work_of(own) == work_of(plan(batch=32))
    assert work_of(own) == work_of(own.on(Machine(devices=2, microbatches=4)))
    assert work_of(own) != work_of(replace(own, pathways=(replace(own.pathways[0], gamma=0.5), *own.pathways[1:])))


# ------------------------------------------------------------------ times of tasks


def test_a_measured_task_takes_what_was_measured() -> None:
    own = plan()
    times = measured(own)
    first, second = (t for t in own.tasks if t.kind == "F" and t.subject in ("0", "2"))
    alone, apart = time_of(times, own, alone=True), time_of(times, own, alone=False)
    assert alone(second, HERE, 1) == 100 + 8
    assert apart(second, HERE, 4) == 200 + 2 * 2
    assert time_of(times, own)(first, HERE, 1) == 8
    assert time_of(times, replace(own, devices=(HERE, HERE)))(second, HERE, 1) == 200 + 16


def test_other_work_is_predicted_from_the_rates() -> None:
    own = plan()
    time = time_of(measured(own), own)
    task = next(t for t in own.tasks if t.id == "F 2")
    for other in (replace(task, flops=task.flops + 1), replace(task, bytes=9), replace(task, subject="new")):
        assert time(other, HERE, 1) == task_us(other, HERE)
    fast = replace(HERE, kind="h100")
    assert time(task, fast, 1) == task_us(task, fast)
    message = Task("P", "z.0>1", ("z.0",), bytes=3000)
    assert time(message, HERE, 1) == pytest.approx(1.0)
    wide = plan(width=9)
    assert time_of(measured(own), wide)(wide.tasks[0], HERE, 1) == task_us(wide.tasks[0], HERE)


def test_another_batch_takes_its_samples() -> None:
    larger = plan(batch=32)
    time = time_of(measured(plan()), larger)
    task = next(t for t in larger.tasks if t.id == "F 2")
    assert time(task, HERE, 1) == 100 + 32
    assert time(replace(task, flops=task.flops * 9), HERE, 1) == task_us(replace(task, flops=task.flops * 9), HERE)


def test_plans_are_priced_by_the_cache() -> None:
    own = plan()
    keep(measured(own))
    same, devices, _ = priced(own, Machine(devices=2, profile="measured", memory="1GiB"), "float32")
    assert same == own
    assert [(d.name, d.kind, d.memory_bytes) for d in devices] == [(f"cpu:{k}", "measured", 2**30) for k in (0, 1)]
    two = retargeted(own, Machine(devices=2, microbatches=2, profile="measured"))
    tasks = {t.id: t.us for t in two.tasks}
    assert tasks["F 2"] == 200 + 2 * 4
    one = retargeted(own, Machine(profile="measured"))
    assert {t.id: t.us for t in one.tasks}["F 2"] == 100 + 8
    assert sum(t.us for t in one.tasks) == pytest.approx(one.simulate().makespan_us)


def test_a_file_of_another_model_gives_its_rates_and_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "wide.json"
    write_measured(measured(plan(width=9)), file)
    made, devices, time = priced(plan(), Machine(profile=str(file)), "float32")
    assert "predicted from the rates" in made.warnings[-1].message
    assert time(made.tasks[0], devices[0], 1) == task_us(made.tasks[0], HERE)
    assert read_profile(str(file)) == (HERE,)  # it is a file of devices as well
    assert [d.flops_per_s for d in parse_devices(str(file))] == [HERE.flops_per_s]


def test_presets_are_priced_as_before_and_measured_needs_a_plan() -> None:
    own = plan()
    assert priced(own, Machine(devices="h100:2"), "float32")[2] is task_us
    assert priced(own, Machine(devices=(HERE,)), "float32")[1] == (HERE,)
    with pytest.raises(PlacementError, match=r"N002.*belong to one model"):
        parse_devices(2, "measured")


# ------------------------------------------------------------------ the command


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A small model's file."""
    (tmp_path / "tiny.py").write_text(TINY)
    return str(tmp_path / "tiny.py")


def test_profile_then_compile_with_what_was_measured(tiny: str, tmp_path: Path, cache: Path) -> None:
    here = str(tmp_path / "here.json")
    result = run("profile", tiny, "-w", "depth1", "--rounds", "1", "--out", here, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [r["name"] for r in data["regions"]] == ["0", "2", "4", "loss"]
    assert data["samples"] == [8, 4, 2]
    assert set(data["regions"][0]["us"]) == {"forward", "errors", "weights", "synapses"}
    assert data["regions"][1]["flops_per_s"] > 0 and data["regions"][1]["bytes_per_s"] > 0
    whole = sum(sum(r["us"].values()) for r in data["regions"])
    assert whole == pytest.approx(data["step_us"]["8"])
    assert Path(data["file"]).parent == cache
    assert read_measured(here) == read_measured(data["file"])
    for profile in ("measured", here):
        compiled = json.loads(run(tiny, "-w", "depth1", "--device-profile", profile, "--json").stdout)
        assert compiled["schedule"]["step_us"] == pytest.approx(whole)
        assert compiled["schedule"]["devices"][0]["profile"] == "measured"
        assert compiled["warnings"] == []
    other = json.loads(run(tiny, "-w", "depth2", "--device-profile", here, "--json").stdout)
    assert "measured on Sequential with wiring 'depth1'" in other["warnings"][-1]


def test_alternatives_that_were_not_profiled_stay_without_a_step(tiny: str, tmp_path: Path, cache: Path) -> None:
    chosen = str(tmp_path / "chosen.yaml")
    asked = (tiny, "--auto", "--devices", "2", "--depth", "1")
    modelled = json.loads(run(*asked, "--write-wiring", chosen, "--json").stdout)["auto"]["alternatives"]
    before = run(*asked, "--device-profile", "measured")
    assert before.exit_code == 2 and "C005" in before.output and "--write-wiring FILE" in before.output
    assert run("profile", tiny, "-w", chosen, "--rounds", "1").exit_code == 0
    found = json.loads(run(*asked, "--device-profile", "measured", "--json").stdout)["auto"]["alternatives"]
    assert [a["label"] for a in found] == [a["label"] for a in modelled] and len(found) > 2
    for a in found:
        assert (a["step_us"] is None, a["note"]) == ((False, "") if a["chosen"] else (True, "not profiled")), a


def test_the_report_has_a_row_for_each_region(tiny: str) -> None:
    result = run("profile", tiny, "-w", "depth1", "--rounds", "1", "--batch-size", "4")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["region", "forward", "µs", "errors", "µs", "weights", "µs", "synapses", "µs", "all", "µs", "GFLOP/s",
            "GB/s"] in lines  # fmt: skip
    assert [line[0] for line in lines if line and line[0] in ("0", "2", "4", "loss")] == ["0", "2", "4", "loss"]
    assert "fitted rates" in result.stdout and "batch 4" in result.stdout


def test_profile_uses_the_loss_and_the_data_of_the_file(tiny: str) -> None:
    with open(tiny, "a") as file:
        file.write("def loss_fn(o, t):\n    return ((o - t['y']) ** 2).mean()\n")
    result = run("profile", tiny, "--rounds", "1")
    assert (result.exit_code, "error[C006]" in result.stderr) == (2, True), result.output
    with open(tiny, "a") as file:
        file.write("def loss_fn(o, t):\n    assert t.dtype == torch.float64\n    return ((o - t) ** 2).mean()\n")
        file.write("x = torch.rand(3, 5)\ndata = ((x, x[:, :3].double()), (x, x[:, :3].double()))\n")
    assert run("profile", tiny, "--rounds", "1").exit_code == 0


def test_mistakes_are_reported_together(tiny: str) -> None:
    result = run("profile", tiny, "-w", "dpth1", "--device", "cuba", "--json")
    assert result.exit_code == 2
    assert {e["code"] for e in json.loads(result.stdout)["errors"]} == {"T023", "W004"}


def test_measured_without_a_profile_says_what_to_run(tiny: str) -> None:
    result = run(tiny, "-w", "depth1", "--device-profile", "measured")
    assert result.exit_code == 2
    assert "error[C005]" in result.stderr and "reclra-compile profile MODEL --wiring depth1" in result.stderr
