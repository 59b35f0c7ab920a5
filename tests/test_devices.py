"""Devices as users write them, presets, and files of devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from reclra_compile.errors import PlacementError
from reclra_compile.ir import Device, Task
from reclra_compile.placement.devices import assumption, device_index, parse_devices
from reclra_compile.placement.pins import parse_pins
from reclra_compile.placement.profiles import DTYPES, PEAKS, preset
from reclra_compile.placement.times import task_us


def named(text: str | int, profile: str | None = None) -> list[tuple[str, str]]:
    return [(d.name, d.kind) for d in parse_devices(text, profile)]


def fault(text: str | int, profile: str | None = None, **more: str) -> tuple[str, str, str]:
    with pytest.raises(PlacementError) as caught:
        parse_devices(text, profile, **more)  # type: ignore[arg-type]
    [found] = caught.value.faults
    return found.code, found.message, found.fix


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (2, [("cpu:0", "cpu"), ("cpu:1", "cpu")]),
        ("2", [("cpu:0", "cpu"), ("cpu:1", "cpu")]),
        ("cpu:1", [("cpu:0", "cpu")]),
        ("h100", [("cuda:0", "h100")]),
        ("cuda:2", [("cuda:0", "h100"), ("cuda:1", "h100")]),
        ("a100:1, h100:2", [("cuda:0", "a100"), ("cuda:1", "h100"), ("cuda:2", "h100")]),
        ("h200:1,cpu:1", [("cuda:0", "h200"), ("cpu:0", "cpu")]),
        ("any:2", [("device:0", "any"), ("device:1", "any")]),
    ],
)
def test_devices_by_number_and_kind(text: str | int, wanted: list[tuple[str, str]]) -> None:
    assert named(text) == wanted


def test_a_profile_stands_for_numbers_and_cuda() -> None:
    assert named("2", "a100") == [("cuda:0", "a100"), ("cuda:1", "a100")]
    assert named("cuda:1,h100:1", "h200") == [("cuda:0", "h200"), ("cuda:1", "h100")]


def test_what_is_assumed_is_said() -> None:
    assert assumption("cuda:8") == "cuda is of profile h100 (choose with --device-profile)"
    assert assumption(4).startswith("a number of devices is of profile cpu")
    assert assumption("cuda:8", "a100") == assumption("h100:2") == assumption("my.yaml") == ""


@pytest.mark.parametrize("name", PEAKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_presets_have_every_rate(name: str, dtype: str) -> None:
    d = preset(name, dtype)
    assert min(d.flops_per_s, d.bytes_per_s, d.link_bytes_per_s, d.link_latency_us, d.task_us) > 0


def test_shorter_numbers_are_not_slower() -> None:
    for name in PEAKS:
        rates = [preset(name, t).flops_per_s for t in ("float64", "float32", "tf32", "bfloat16")]
        assert rates == sorted(rates)


def test_memory_replaces_that_of_the_preset() -> None:
    assert [d.memory_bytes for d in parse_devices("h100:1,cpu:1", memory="40GiB")] == [40 * 2**30] * 2
    assert fault("2", memory="lots") == ("N001", "'lots' is not a memory size", "write one such as 40GiB")
    assert fault("2", memory="0")[0] == "N001"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (0, "N001", "'0' asks for 0 devices: there has to be one"),
        ("cpu:0", "N001", "'cpu:0' asks for 0 devices: there has to be one"),
        ("-3", "N001", "'-3' asks for -3 devices: there has to be one"),
        ("", "N001", "'' does not say which devices"),
        ("4x", "N001", "'4x' does not say which devices"),
        ("cpu:2,", "N001", "'cpu:2,' does not say which devices"),
        ("cpu:1000000", "N001", "'cpu:1000000' asks for more than 65536 devices"),
        ("cpu:40000,h100:40000", "N001", "80000 devices are more than 65536"),
        ("h1000:2", "N002", "there is no device profile 'h1000'"),
        ("none.yaml", "N003", "there is no such file"),
    ],
)
def test_what_names_no_devices(text: str | int, code: str, message: str) -> None:
    assert fault(text)[:2] == (code, message)


def test_the_nearest_profile_is_named() -> None:
    assert fault("h10:2")[2].startswith("did you mean 'h100'?")
    assert fault("2", "a10")[:2] == ("N002", "there is no device profile 'a10'")
    assert fault("2", dtype="float3")[2] == "did you mean 'float32'?"


# files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "devices.yaml"


def test_a_file_of_devices(file: Path) -> None:
    file.write_text(
        "about: ours\ndevices:\n  - {profile: h100, count: 2, memory_bytes: 40GiB}\n"
        "  - {name: old, flops_per_s: {float32: 8.0e+12}, task_us: 5}\n"
    )
    first, second, third = parse_devices(str(file))
    assert (first.name, second.name, third.name) == ("cuda:0", "cuda:1", "old")
    assert first.flops_per_s == preset("h100").flops_per_s and first.memory_bytes == 40 * 2**30
    assert third == Device("old", "own", flops_per_s=8e12, task_us=5)


def test_a_file_with_one_device_is_a_profile(file: Path) -> None:
    file.write_text('{"device": {"kind": "here", "flops_per_s": 1e11, "link_latency_us": 3}, "measured": {"a": 1}}')
    assert [(d.name, d.kind, d.flops_per_s) for d in parse_devices("2", str(file))] == [
        ("here:0", "here", 1e11), ("here:1", "here", 1e11)]  # fmt: skip
    file.write_text("{kind: here, flops_per_s: 100000000000}")
    assert parse_devices(1, str(file))[0].flops_per_s == 1e11


def test_a_file_with_several_devices_gives_no_more(file: Path) -> None:
    file.write_text("[{name: a}, {name: b}]")
    assert [d.name for d in parse_devices("1", str(file))] == ["a"]
    assert fault("3", str(file))[:2] == ("N001", "'3' asks for 3 devices, but the profile's file has 2")


def test_all_faults_of_a_file_with_their_lines(file: Path) -> None:
    file.write_text(
        "devices:\n  - {profile: h10, cout: 2}\n  - 7\n  - {memory_bytes: 3XB, count: 0}\n"
        "  - {flops_per_s: {int8: 1}}\n"
    )
    with pytest.raises(PlacementError) as caught:
        parse_devices(str(file))
    found = [(f.code, f.where.line if f.where else 0, f.message) for f in caught.value.faults]
    assert found == [
        ("N003", 2, "unknown key 'cout' of a device"),
        ("N003", 2, "there is no device profile 'h10'"),
        ("N003", 3, "a device is a mapping of its fields"),
        ("N003", 4, "'memory_bytes' must be a number from 0 on, not '3XB'"),
        ("N003", 4, "'count' must be a whole number from 1 on, not 0"),
        ("N003", 5, "no rate for dtype float32"),
    ]


@pytest.mark.parametrize("text", ["", "devices: []", "devices:\n\t- a: b", "- {a: 1, a: 2}", "7"])
def test_files_that_name_no_device(file: Path, text: str) -> None:
    file.write_text(text)
    assert fault_codes(str(file)) == {"N003"}


def fault_codes(text: str) -> set[str]:
    with pytest.raises(PlacementError) as caught:
        parse_devices(text)
    return {f.code for f in caught.value.faults}


# pins and times


def test_pins_name_devices_by_number_name_and_kind() -> None:
    devices = parse_devices("a100:1,h100:2")
    assert [device_index(w, devices) for w in (0, "2", "cuda:1", "h100:0", "h100:1", "a100")] == [0, 2, 1, 1, 2, 0]
    assert [device_index(w, devices) for w in (3, "cuda:3", "h100:2", "h100", "cpu:0", "", "-1")] == [None] * 7


def test_pins_as_written_on_a_command_line() -> None:
    assert parse_pins(["head.*=cuda:0", " a = 1", "x=y=2"]) == {"head.*": "cuda:0", "a": "1", "x=y": "2"}
    with pytest.raises(PlacementError) as caught:
        parse_pins(["head", "=1", "a="])
    assert [f.code for f in caught.value.faults] == ["N006"] * 3


@pytest.mark.parametrize(
    ("task", "device", "wanted"),
    [
        (Task("F", "r", (), flops=4000, bytes=10), Device(flops_per_s=1e9, bytes_per_s=1e9, task_us=1), 3.0),
        (Task("F", "r", (), flops=40, bytes=8000), Device(flops_per_s=1e9, bytes_per_s=1e9, task_us=1), 5.0),
        (Task("F", "r", (), flops=4000, bytes=10), Device(bytes_per_s=1e6), 5.0),
        (Task("F", "r", (), flops=4000, bytes=10), Device(flops_per_s=1e9), 2.0),
        (Task("F", "r", (), flops=4000), Device(), 2000.0),
        (Task("P", "v", (), flops=0, bytes=4000), Device(flops_per_s=1, link_bytes_per_s=1e9, task_us=9), 2.0),
        (Task("P", "v", (), bytes=4000), Device(), 0.0),
        (Task("R", "v", (), bytes=4000), Device(link_bytes_per_s=1, task_us=9), 0.0),
        (Task("X", "v", ()), Device(task_us=9), 0.0),
    ],
)
def test_a_task_takes_the_longer_of_arithmetic_and_traffic(task: Task, device: Device, wanted: float) -> None:
    assert task_us(task, device, 2) == wanted
