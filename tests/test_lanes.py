"""Programs on several devices and in microbatches: the same gradients as on one, in any interleaving."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from models import build
from synthetic import dag
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.arrange import arrange
from reclra_compile.errors import PlanError, TrainingError
from reclra_compile.ir import Device, Plan
from reclra_compile.machine import Machine
from reclra_compile.placement.memory import peaks, static_bytes
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.region import Live
from reclra_compile.runtime.state import Errors
from reclra_compile.schedule.expand import interleaved, lanes
from reclra_compile.schedule.values import base

FEW = settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
SPREADS = [(1, 2), (2, 1), (2, 2), (3, 4), (4, 1), (4, 4)]
WIRINGS = ("backprop", "depth1", "depth2", "depth1_local", "lra_e", "kolen_pollack", "depth1_paper", "sign_symmetry",
           "equilibrium_propagation")  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(name: str) -> tuple[nn.Module, Any, Tensor]:
    """A model in float64, its inputs, and labels, or for the architectures what `F.mse_loss` compares with."""
    torch.manual_seed(0)
    if name in ARCHITECTURES:
        module, inputs = ARCHITECTURES[name]()
        inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
        with torch.no_grad():
            return module.double(), inputs, torch.randn_like(copy.deepcopy(module)(*inputs))
    module, x = build(name)
    return module.double(), (x.double(),), torch.tensor([0, 1, 2, 0])


def gradients(name: str, wiring: Any = None, **options: Any) -> dict[str, Tensor]:
    """Loss, gradients and discrepancy after one step of a freshly built model."""
    module, inputs, y = made(name)
    loss_fn = F.mse_loss if name in ARCHITECTURES else F.cross_entropy
    return after_step(rc.compile(module, inputs, wiring, loss_fn=loss_fn, **options), inputs, y)


def after_step(program: Program, inputs: Any, y: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(1)
    loss = program.step(*inputs, y)
    named = [*program.model.named_parameters(), *program.synapses.named_parameters(prefix="synapses")]
    found = {n: p.grad for n, p in named if p.grad is not None}
    return {"loss": loss, "discrepancy": torch.tensor(program.discrepancy.total), **found}


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [n for n, g in one.items() if not torch.allclose(g.double(), other[n].double(), rtol=1e-9, atol=1e-10)]


@functools.cache
def alone(name: str, wiring: str) -> dict[str, Tensor]:
    return gradients(name, wiring)


@pytest.mark.parametrize(("devices", "parts"), SPREADS)
@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("model", ["mlp", "residual"])
def test_devices_and_microbatches_change_no_gradient(model: str, wiring: str, devices: int, parts: int) -> None:
    if wiring == "equilibrium_propagation" and devices > 1:
        with pytest.raises(rc.ReclraError, match="N008"):
            gradients(model, wiring, devices=devices)
        return
    assert differ(gradients(model, wiring, devices=devices, microbatches=parts), alone(model, wiring)) == []


def without_dropout(module: nn.Module) -> nn.Module:
    for m in module.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
        if isinstance(m, nn.MultiheadAttention | nn.LSTM):
            m.dropout = 0.0
    return module


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_backprop_is_autograd_of_each_microbatch_on_every_architecture(name: str) -> None:
    module, inputs, y = made(name)
    twin = copy.deepcopy(without_dropout(module))
    plan = rc.plan_for(module, inputs, "backprop")
    try:
        plan = plan.on(rc.Machine(3, 2))
    except rc.PlacementError as error:  # few regions, or weights that several share and that stay together
        assert {f.code for f in error.faults} == {"N004"}
        plan = plan.on(rc.Machine(2, 2))
    program = rc.compile(module, inputs, plan=plan, loss_fn=F.mse_loss)
    found = after_step(program, inputs, y)
    for x, t in zip(zip(*(x.tensor_split(2) for x in inputs), strict=True), y.tensor_split(2), strict=True):
        (F.mse_loss(twin(*x), t) * len(t) / len(y)).backward()
    total = torch.stack([p.grad.norm() for p in twin.parameters() if p.grad is not None]).norm()
    for n, p in twin.named_parameters():
        if p.grad is not None:
            assert (found[n] - p.grad).norm() <= 1e-10 * torch.maximum(p.grad.norm(), 1e-3 * total), n
    for a, b in zip(module.buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("model", "wiring"), [("mixer", "depth1"), ("mixer", "blocks"), ("vit", "blocks")])
def test_transformers_too(model: str, wiring: str) -> None:
    """With dropout, whose masks follow from region and microbatch alone."""
    found = gradients(model, wiring, devices=3, microbatches=2)
    assert differ(found, gradients(model, wiring, microbatches=2)) == []


@pytest.mark.parametrize("model", ["mlp", "residual", "branching", "merged"])
def test_backprop_is_autograd_on_devices_in_microbatches(model: str) -> None:
    found = gradients(model, "backprop", devices=2, microbatches=2)
    module, inputs, y = made(model)
    F.cross_entropy(module(*inputs), y).backward()
    for name, p in module.named_parameters():
        assert torch.allclose(found[name], p.grad, rtol=1e-9, atol=1e-12), name


def test_batch_statistics_are_those_of_each_microbatch() -> None:
    module, inputs, y = made("batchnorm")
    program = rc.compile(module, inputs, "backprop", devices=2, microbatches=2)
    found = after_step(program, inputs, y)
    other, _, _ = made("batchnorm")
    for x, t in zip(inputs[0].chunk(2), y.chunk(2), strict=True):
        (F.cross_entropy(other(x), t) / 2).backward()
    for (name, p), b in zip(other.named_parameters(), module.buffers(), strict=False):
        assert torch.allclose(found[name], p.grad, rtol=1e-9, atol=1e-12), name
        assert b is not None
    for one, two in zip(module.buffers(), other.buffers(), strict=True):
        assert torch.equal(one, two)


def test_uneven_microbatches_weigh_as_many_samples_as_they_have() -> None:
    torch.manual_seed(0)
    module, _ = build("mlp", batch=7)
    x, y = torch.rand(7, 6), torch.randint(3, (7,))
    whole = after_step(rc.compile(module.double(), x.double(), "depth1"), (x.double(),), y)
    module.zero_grad()
    parts = after_step(rc.compile(module, x.double(), "depth1", microbatches=3), (x.double(),), y)
    assert differ(parts, whole) == []


def test_a_sum_is_a_sum_over_all_microbatches() -> None:
    module, inputs, y = made("mlp")
    loss = nn.CrossEntropyLoss(reduction="sum")
    whole = after_step(rc.compile(module, inputs, "depth1_local", loss_fn=loss), inputs, y)
    module.zero_grad()
    parts = after_step(rc.compile(module, inputs, "depth1_local", loss_fn=loss, microbatches=2), inputs, y)
    assert differ(parts, whole) == []


def test_what_cannot_be_cut_is_refused() -> None:
    module, inputs, y = made("mlp")
    program = rc.compile(module, inputs, "depth1", microbatches=2)
    with pytest.raises(TrainingError, match="T028"):
        program.step(*inputs, y[:3])


def test_a_small_batch_has_fewer_microbatches() -> None:
    module, inputs, y = made("mlp")
    program = rc.compile(module, inputs, "depth1", devices=2, microbatches=9)
    assert differ(after_step(program, inputs, y), alone("mlp", "depth1")) == []


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


# Interleavings


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


# Memory


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


# Staleness


def by_hand(steps: int, rate: float) -> list[Tensor]:
    """Delayed gradients in plain loops: W(t+1) = W(t) − η g(W(t−1); batch t)."""
    module, inputs, y = made("mlp")
    before = [p.detach().clone() for p in module.parameters()]
    for _ in range(steps):
        now = [p.detach().clone() for p in module.parameters()]
        with torch.no_grad():
            for p, b in zip(module.parameters(), before, strict=True):
                p.copy_(b)
        grads = torch.autograd.grad(F.cross_entropy(module(*inputs), y), list(module.parameters()))
        with torch.no_grad():
            for p, n, g in zip(module.parameters(), now, grads, strict=True):
                p.copy_(n - rate * g)
        before = now
    return [p.detach() for p in module.parameters()]


@pytest.mark.parametrize("devices", [1, 2])
def test_stale_gradients_are_those_of_the_weights_before(devices: int) -> None:
    module, inputs, y = made("mlp")
    program = rc.compile(module, inputs, "backprop", devices=devices, microbatches=2, staleness=1)
    optimizer = torch.optim.SGD(program.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        program.step(*inputs, y)
        optimizer.step()
    for p, q in zip(module.parameters(), by_hand(5, 0.5), strict=True):
        assert torch.allclose(p, q, rtol=1e-10, atol=1e-12)


def trained(program: Program, inputs: Any, y: Tensor, steps: int) -> None:
    optimizer = torch.optim.SGD(program.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        program.step(*inputs, y)
        optimizer.step()


def test_a_stale_run_resumes_exactly() -> None:
    module, inputs, y = made("mlp")
    whole = rc.compile(module, inputs, "depth1", staleness=1)
    trained(whole, inputs, y, 6)
    first_module, _, _ = made("mlp")
    first = rc.compile(first_module, inputs, "depth1", staleness=1)
    trained(first, inputs, y, 3)
    second_module, _, _ = made("mlp")
    second = rc.compile(second_module, inputs, "depth1", staleness=1)
    second_module.load_state_dict(first_module.state_dict())
    second.load_state_dict(first.state_dict())
    trained(second, inputs, y, 3)
    for p, q in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)
    with pytest.raises(PlanError, match="P011"):
        second.load_state_dict({k: v for k, v in first.state_dict().items() if k != "before"})


def test_plans_of_devices_run_from_their_text() -> None:
    module, inputs, y = made("residual")
    program = rc.compile(module, inputs, "depth2", devices=3, microbatches=2)
    expected = after_step(program, inputs, y)
    other, _, _ = made("residual")
    found = after_step(rc.compile(other, inputs, plan=Plan.parse(str(program.plan))), inputs, y)
    assert [n for n, g in expected.items() if not torch.equal(g, found[n])] == []
    assert {base(v) for t in program.plan.tasks if t.kind == "P" for v in t.writes}


def alternating(names: list[str]) -> dict[str, int]:
    return {name: k % 2 for k, name in enumerate(names)}


def test_what_passes_by_is_seen_on_every_device() -> None:
    """Regions take turns on two devices, so that each value is read from a copy."""
    module, inputs, y = made("mlp")
    program = rc.compile(module, inputs, "backprop", devices=2, placement=alternating(["fc1", "fc2", "fc3", "fc4"]))
    z: dict[str, Tensor] = {}

    def after(task: Any, read: Any) -> None:
        if task.kind == "F":
            assert all(isinstance(read(base(v)), Tensor) for v in task.reads)
            z[task.subject] = read(f"z.{task.subject}")

    program.observe(*inputs, y, before=lambda task, read: None, after=after)
    x = inputs[0]
    for name in ("fc1", "fc2", "fc3", "fc4", "fc5"):
        x = torch.relu(module.get_submodule(name)(x))
        assert torch.allclose(z[name], x, rtol=1e-10, atol=1e-12)


def test_the_first_region_that_is_not_finite_is_named_on_any_device() -> None:
    module, inputs, _ = made("mlp")
    program = rc.compile(module, inputs, "depth2", devices=2, placement=alternating(["fc1", "fc2", "fc3", "fc4"]))
    assert program.first_non_finite(*inputs) is None
    with torch.no_grad():
        module.fc3.weight.fill_(1e300)
        module.fc4.weight.fill_(1e300)
    assert program.first_non_finite(*inputs) == "fc4"  # its output overflows, its weights do not
