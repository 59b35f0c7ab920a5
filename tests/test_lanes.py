"""Programs on several devices and in microbatches: the same gradients as on one."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from lanes import after_step, alone, differ, gradients, made
from models import build
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.errors import TrainingError
from reclra_compile.ir import Plan
from reclra_compile.schedule.values import base

SPREADS = [(1, 2), (2, 1), (3, 4), (4, 2)]
WIRINGS = ("backprop", "depth1", "depth2", "depth1_local", "lra_e", "kolen_pollack", "depth1_paper", "sign_symmetry",
           "equilibrium_propagation")  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


LOSSES = {
    "weights": lambda: nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)),
    "smoothing": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
    "ignored": nn.CrossEntropyLoss,
    "function": lambda: F.cross_entropy,
    "sum": lambda: nn.CrossEntropyLoss(reduction="sum"),
}


@pytest.mark.parametrize("wiring", ["backprop", "depth1", "depth1_local", "lra_e"])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_that_weigh_their_labels_are_cut_as_they_weigh_them(kind: str, wiring: str) -> None:
    """The first microbatch has only ignored labels, the others some."""
    torch.manual_seed(0)
    module, _ = build("mlp", batch=6)
    module, x = module.double(), torch.rand(6, 6, dtype=torch.float64)
    ignored = kind in ("ignored", "function")
    y = torch.tensor([-100, -100, 0, 2, -100, 1] if ignored else [0, 1, 2, 0, 1, 1])
    found = []
    for options in ({}, {"devices": 2, "microbatches": 3}):
        module.zero_grad()
        found.append(after_step(rc.compile(module, x, wiring, loss_fn=LOSSES[kind](), **options), (x,), y))
        found[-1] = {n: g.clone() for n, g in found[-1].items()}
    assert found[0]["loss"].isfinite()
    assert differ(*found) == []


def test_a_loss_that_compares_samples_cannot_be_cut() -> None:
    module, inputs, y = made("mlp")
    program = rc.compile(module, inputs, "backprop", loss_fn=lambda o, y: o.var(0).sum(), reduction="mean",
                         microbatches=2)  # fmt: skip
    with pytest.raises(TrainingError, match="T029"):
        program.step(*inputs, y)


def test_a_norm_over_the_batch_has_two_samples_in_each_microbatch() -> None:
    module, inputs, y = made("batchnorm")
    program = rc.compile(module, inputs, "depth1", microbatches=4)
    with torch.no_grad():
        program.step(*inputs, y)
    assert program.step(*(x[:3] for x in inputs), y[:3]).isfinite()


def test_a_region_may_be_called_like_an_arrow() -> None:
    model = nn.Sequential(OrderedDict([("a-", nn.Linear(6, 5)), ("t", nn.Tanh()), ("b", nn.Linear(5, 3))]))
    x, y = torch.rand(4, 6), torch.tensor([0, 1, 2, 0])
    whole = after_step(rc.compile(model, x, "depth1"), (x,), y)
    model.zero_grad()
    assert differ(after_step(rc.compile(model, x, "depth1", devices=2), (x,), y), whole) == []
