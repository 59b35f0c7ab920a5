"""No device holds more than its plan states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models import build
from torch import Tensor

import reclra_compile as rc
from reclra_compile.placement.memory import peaks, static_bytes
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.region import Live
from reclra_compile.runtime.state import Errors


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def live_bytes(program: Program, inputs: Any, y: Tensor) -> list[int]:
    """The most bytes that lived in slots on each device in one step; what two values share counts once."""
    plan, most = program.plan, [0] * len(program.plan.devices)
    device_of = {v: t.device for t in plan.tasks for v in t.writes if t.kind != "P"}
    slot_of = {v: program._linked.slot(v) for v in device_of if not v.startswith(("g.", "loss"))}
    seen: dict[int, list[Any]] = {}

    def watched(run: Any) -> Any:
        def step(slots: list[Any]) -> None:
            run(slots)
            seen[id(slots)] = slots
            for d in range(len(most)):
                here = {}
                for live in seen.values():
                    for v, slot in slot_of.items():
                        if device_of[v] == d:
                            here |= storages(live[slot])
                most[d] = max(most[d], sum(here.values()))

        return step

    program._steps = [watched(run) for run in program._steps]
    program.step(*inputs, y)
    return most


def storages(value: Any) -> dict[int, int]:
    """Address and bytes of what a value keeps; of error neurons one of two forms, as only one is sent."""
    if isinstance(value, Tensor):
        return {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()}
    if isinstance(value, Errors):
        return storages(value.c)
    parts = value.roots if isinstance(value, Live) else value if isinstance(value, tuple) else ()
    return {at: n for part in parts if part is not None for at, n in storages(part).items()}


@pytest.mark.parametrize(("devices", "parts"), [(1, 2), (2, 2), (3, 4)])
@pytest.mark.parametrize("wiring", ["backprop", "depth1", "depth2", "depth1_local"])
@pytest.mark.parametrize("model", ["mlp", "residual", "branching"])
def test_no_device_holds_more_than_the_plan_states(model: str, wiring: str, devices: int, parts: int) -> None:
    torch.manual_seed(0)
    module, x = build(model, batch=8)
    program = rc.compile(module, x, wiring, devices=devices, microbatches=parts)
    stated = program.plan.placement.peak_bytes
    assert stated == peaks(program.plan)
    found = live_bytes(program, (x,), torch.arange(8) % 3)
    for most, peak, static in zip(found, stated, static_bytes(program.plan), strict=True):
        assert 0 < most <= peak - static
