"""Any interleaving of devices' lanes gives the same result, on fixed models and random region graphs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lanes import after_step, differ, made
from synthetic import dag
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.arrange import arrange
from reclra_compile.errors import PlanError
from reclra_compile.ir import Device
from reclra_compile.machine import Machine
from reclra_compile.schedule.expand import interleaved, lanes

FEW = settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck), phases=[Phase.generate])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class RandomNet(nn.Module):
    """Layers that each read a random choice of those before; the last reads whatever nobody else does."""

    def __init__(self, seed: int, length: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.reads = [rng.sample(range(k), min(k, rng.randint(1, 2))) for k in range(length)]
        read = {i for reads in self.reads for i in reads}
        self.last = sorted({length - 1} | (set(range(length)) - read))
        self.layers = nn.ModuleList(nn.Linear(5 if reads else 6, 5) for reads in self.reads)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        made: list[Tensor] = []
        for layer, reads in zip(self.layers, self.reads, strict=True):
            made.append(torch.tanh(layer(sum(made[i] for i in reads) if reads else x)))
        return self.out(sum(made[i] for i in self.last))


def random_wiring(model: RandomNet, seed: int) -> dict[str, Any]:
    """Each layer hears the output or any layer that lies after it."""
    rng = random.Random(seed)
    names = [f"layers.{k}" for k in range(len(model.layers))]
    pathways = []
    for k, name in enumerate(names):
        source = rng.choice(["output", *names[k + 1 :]])
        pathways.append({"from": source, "to": name, "kernel": rng.choice(["dense", {"low_rank": 2}])})
    return {"version": 1, "target": {"beta": 0.1, "normalize": True}, "pathways": pathways}


@FEW
@given(seed=st.integers(0, 2**32), length=st.integers(1, 6), devices=st.integers(1, 4), parts=st.integers(1, 4))
def test_random_region_graphs_run_alike_on_any_devices(seed: int, length: int, devices: int, parts: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed % 1000)
    x, y = torch.rand(5, 6, dtype=torch.float64), torch.randint(3, (5,))
    model = RandomNet(seed, length).double()
    wiring = random_wiring(model, seed)
    whole = after_step(rc.compile(model, x, wiring), (x,), y)
    model.zero_grad()
    program = rc.compile(model, x, wiring, devices=min(devices, length + 1), microbatches=parts)
    program._sequence = interleaved(program.plan, rng)
    assert differ(after_step(program, (x,), y), whole) == []
    program.zero_grad()
    program._sequence = interleaved(program.plan)
    other = after_step(program, (x,), y)
    assert differ(other, whole) == []


@pytest.mark.parametrize(("model", "wiring"), [("mlp", "depth2"), ("residual", "backprop"), ("dropout", "depth1"),
                                               ("mlp", "target_propagation"), ("mlp", "weight_mirror")])  # fmt: skip
@FEW
@given(seed=st.integers(0, 2**32), devices=st.integers(2, 4), parts=st.integers(1, 4))
def test_any_interleaving_of_lanes_gives_the_same(
    model: str, wiring: str, seed: int, devices: int, parts: int
) -> None:
    module, inputs, y = made(model)
    program = rc.compile(module, inputs, wiring, devices=devices, microbatches=parts)
    expected = {n: g.clone() for n, g in after_step(program, inputs, y).items()}
    program.zero_grad()
    program._sequence = interleaved(program.plan, random.Random(seed))
    found = after_step(program, inputs, y)
    assert [n for n, g in expected.items() if not torch.equal(g, found[n])] == []


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 4), st.integers(1, 5))
def test_interleavings_keep_lanes_and_reads(seed: int, length: int, devices: int, parts: int) -> None:
    plan = dag(seed, length)
    rates = tuple(Device(f"d{k}", flops_per_s=1e9) for k in range(min(devices, length)))
    plan = arrange(plan, rates, Machine(microbatches=parts))
    for sequence in (interleaved(plan), interleaved(plan, random.Random(seed))):
        written: set[tuple[str, int]] = set()
        made_here = {v for t in plan.tasks for v in t.writes}
        for i, m in sequence:
            task = plan.tasks[i]
            assert all((v, m) in written for v in task.reads if v in made_here)
            written |= {(v, m) for v in task.writes}
            written -= {(v, m) for v in task.reads if task.kind == "X"}
        for d, lane in enumerate(lanes(plan)):
            assert [e for e in sequence if plan.tasks[e[0]].device == d] == list(lane)


def test_devices_that_wait_for_each_other_are_named() -> None:
    plan = arrange(dag(3, 4), tuple(Device(f"d{k}") for k in range(2)), Machine(microbatches=2))
    post = next(k for k, t in enumerate(plan.tasks) if t.kind == "P")
    tasks = list(plan.tasks)
    tasks[post] = replace(tasks[post], turn=9)
    with pytest.raises(PlanError, match="P111"):
        interleaved(replace(plan, tasks=tuple(tasks)))
