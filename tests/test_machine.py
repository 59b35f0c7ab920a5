"""What a plan is made for: values that cannot be are refused, and what is left open comes from wiring or plan."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from models import build

import reclra_compile as rc
from reclra_compile.errors import PlacementError, UserError
from reclra_compile.ir import Device
from reclra_compile.machine import Machine
from reclra_compile.spec.load import load_wiring

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"microbatches": 0}, "N009", "microbatches 0"),
    ({"microbatches": -1}, "N009", "microbatches -1"),
    ({"microbatches": 2.5}, "N009", "microbatches 2.5"),
    ({"microbatches": "2"}, "N009", "microbatches '2'"),
    ({"microbatches": True}, "N009", "microbatches True"),
    ({"microbatches": 10**9}, "N009", "65,536"),
    ({"staleness": 2}, "N009", "staleness 2"),
    ({"devices": 2.0}, "N009", "devices 2.0"),
    ({"devices": ["cpu", "cpu"]}, "N009", "list of Devices"),
    ({"devices": [Device("a"), Device("a")]}, "N001", "'a' is there 2 times"),
    ({"devices": [Device("a", flops_per_s=math.nan)]}, "N001", "'a' has flops_per_s nan"),
    ({"devices": [Device("a", memory_bytes=-1)]}, "N001", "'a' has memory_bytes -1"),
    ({"devices": 0}, "N001", "0 devices"),
    ({"placement": {0: 1}}, "N009", "globs"),
    ({"placement": ["a"]}, "N009", "globs"),
]


@pytest.mark.parametrize(("options", "code", "said"), WRONG)
def test_what_cannot_be_is_refused(options: dict[str, Any], code: str, said: str) -> None:
    module, x = build("mlp")
    with pytest.raises(PlacementError) as failed:
        rc.compile(module, x, "depth1", **options)
    assert {f.code for f in failed.value.faults} == {code}
    assert said in str(failed.value)


def test_all_of_it_is_said_at_once() -> None:
    with pytest.raises(PlacementError) as failed:
        Machine(devices=2.0, microbatches=0, staleness=7)  # type: ignore[arg-type]
    assert len(failed.value.faults) == 3


def wiring(folder: Path, schedule: str) -> Path:
    file = folder / "w.yaml"
    file.write_text(f"version: 1\nschedule: {schedule}\npathways:\n  - {{from: output, to: all}}\n")
    return file


def test_a_wirings_devices_are_shown_where_they_stand(tmp_path: Path) -> None:
    module, x = build("mlp")
    for devices in ("0", "nope:3", '"5,"'):
        with pytest.raises(PlacementError) as failed:
            rc.compile(module, x, wiring(tmp_path, f"{{devices: {devices}}}"))
        where = failed.value.faults[0].where
        assert where is not None
        assert where.line == 2


def test_what_is_said_replaces_the_wiring_and_the_rest_stays(tmp_path: Path) -> None:
    module, x = build("mlp")
    file = wiring(tmp_path, "{devices: 3, microbatches: 2, staleness: 1}")
    plan = rc.plan_for(module, x, file)
    assert (len(plan.devices), plan.schedule.microbatches, plan.schedule.staleness) == (3, 2, 1)
    plan = rc.plan_for(module, x, file, machine=Machine(profile="h100", microbatches=4))
    assert [d.kind for d in plan.devices] == ["h100"] * 3
    assert (plan.schedule.microbatches, plan.schedule.staleness) == (4, 1)
    same = rc.compile(module, x, file, devices=Machine(profile="h100", microbatches=4)).plan
    assert same == plan
    assert Machine().over(load_wiring(file)).devices == 3


def test_a_plan_keeps_what_is_left_open() -> None:
    module, x = build("mlp")
    plan = rc.plan_for(module, x, "depth1", machine=Machine("h100:3", 2, 1))
    other = plan.on(Machine(microbatches=4))
    assert (other.devices, other.schedule.microbatches, other.schedule.staleness) == (plan.devices, 4, 1)
    fewer = plan.on(Machine(devices=2))
    assert (len(fewer.devices), fewer.schedule.microbatches, fewer.schedule.staleness) == (2, 2, 1)
    assert plan.on(Machine()) == plan
    with pytest.raises(UserError, match="S004"):
        plan.on(Machine(microbatches=5))


def test_more_microbatches_than_samples_are_warned_of() -> None:
    module, x = build("mlp")
    plan = rc.plan_for(module, x, "depth1", machine=Machine(microbatches=9))
    assert any("9 microbatches" in w.message for w in plan.warnings)
    assert rc.plan_for(module, x, "depth1", machine=Machine(microbatches=4)).warnings == ()
