"""Transparency: the backprop wiring gives autograd's gradients, buffers and weights on every model."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo import ZOO

import reclra_compile as rc


def build(name: str, dtype: torch.dtype):
    """A model of the zoo with inputs and labels."""
    torch.manual_seed(3)
    model, inputs = ZOO[name]()
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    return model.to(dtype), inputs, torch.randint(4, (len(inputs[0]),))


def compare(program: rc.Program, twin: nn.Module, inputs, y, tolerance: float, kind=torch.optim.SGD) -> None:
    """Three optimizer steps of the program and of autograd on a twin: gradients, buffers, weights."""
    ours = kind([p for p in program.model.parameters() if p.requires_grad], 0.05)
    theirs = kind([p for p in twin.parameters() if p.requires_grad], 0.05)
    for step in range(3):
        torch.manual_seed(step)  # one dropout mask for both
        program.zero_grad()
        loss = program.step(*inputs, y)
        torch.manual_seed(step)
        theirs.zero_grad()
        expected = F.cross_entropy(twin(*inputs), y)
        expected.backward()
        torch.testing.assert_close(loss, expected.detach(), rtol=tolerance, atol=tolerance)
        for (name, a), b in zip(program.model.named_parameters(), twin.parameters(), strict=True):
            if b.grad is None:
                assert a.grad is None, f"{name} is frozen"
                continue
            error = float((a.grad - b.grad).norm() / b.grad.norm().clamp(min=1e-12))
            assert error <= tolerance, f"{name}: relative error {error:.1e} in step {step}"
        ours.step()
        theirs.step()
        for a, b in zip(program.model.buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    for a, b in zip(program.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ZOO)
def test_backprop_wiring_equals_autograd(name: str, dtype: torch.dtype) -> None:
    model, inputs, y = build(name, dtype)
    twin = copy.deepcopy(model)
    program = rc.compile(model, inputs, "backprop")
    compare(program, twin, inputs, y, 1e-10 if dtype == torch.float64 else 1e-6)


TRANSPOSABLE = [n for n in ZOO if n != "two_inputs"]


@pytest.mark.parametrize("name", TRANSPOSABLE)
def test_the_transpose_kernel_equals_autograd(name: str) -> None:
    """Tied Wᵀ on the way back is the adjoint: the feedback rewrite leaves forward pass and ΔW alone."""
    model, inputs, y = build(name, torch.float64)
    twin = copy.deepcopy(model)
    spec = {"version": 1, "target": {"rule": "gradient"},
            "pathways": [{"from": "consumers", "to": "all", "kernel": "transpose"}]}  # fmt: skip
    if len(rc.plan_for(model, inputs, "backprop").regions) == 1:
        pytest.skip("one region has no pathways")
    compare(rc.compile(model, inputs, spec), twin, inputs, y, 1e-10)


def test_layers_without_mirrored_weights_are_refused() -> None:
    model, inputs, _ = build("two_inputs", torch.float32)
    with pytest.raises(rc.WiringError, match="W033"):
        rc.compile(model, inputs, "sign_symmetry")


@pytest.mark.parametrize("wiring", rc.shipped())
@pytest.mark.parametrize("name", [n for n in ZOO if not n.startswith("chain_")])
def test_every_shipped_wiring_runs_on_every_model(name: str, wiring: str) -> None:
    """Finite loss, a finite gradient on every parameter that learns, nothing changed but gradients and buffers."""
    model, inputs, y = build(name, torch.float32)
    try:
        program = rc.compile(model, inputs, wiring)
    except rc.WiringError as error:
        assert {f.code for f in error.faults} <= {"W032", "W033", "W038", "W042"}, error
        return
    before = [p.detach().clone() for p in program.parameters()]
    assert program.step(*inputs, y).isfinite()
    for (n, p), old in zip(model.named_parameters(), before, strict=False):
        assert torch.equal(p, old)
        assert (p.grad is None) if not p.requires_grad else p.grad is not None and p.grad.isfinite().all(), n


def test_the_model_keeps_its_own_parameters_and_mode() -> None:
    model, inputs, y = build("batch_norm_and_dropout", torch.float32)
    own = {id(p) for p in model.parameters()}
    program = rc.compile(model, inputs, "depth1")
    assert {id(p) for p in program.model_parameters()} == own
    program.step(*inputs, y)
    model.eval()
    assert torch.equal(model(*inputs), model(*inputs))
    assert isinstance(model[2], nn.ReLU)


def test_compiling_changes_nothing_of_the_model_and_of_the_random_state() -> None:
    model, inputs, _ = build("batch_norm_and_dropout", torch.float32)
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    state = torch.get_rng_state()
    rc.compile(model, inputs, "depth2_gap2")
    assert torch.equal(state, torch.get_rng_state())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_gradients_accumulate_as_in_autograd() -> None:
    model, inputs, y = build("conv_residual", torch.float64)
    model.eval()  # running statistics fixed, so that two steps see the same function
    program = rc.compile(model, inputs, "backprop")
    program.step(*inputs, y)
    once = [p.grad.clone() for p in model.parameters()]
    program.step(*inputs, y)
    for a, p in zip(once, model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, 2 * a)


def test_the_batch_size_may_change() -> None:
    model, inputs, _ = build("residual", torch.float64)
    program = rc.compile(model, inputs, "backprop")
    x = torch.randn(13, 6, dtype=torch.float64)
    t = torch.randint(4, (13,))
    twin = copy.deepcopy(model)
    program.step(x, t)
    F.cross_entropy(twin(x), t).backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
