"""Transparency at every granularity: the backprop wiring is autograd on every architecture."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from torch import nn

import reclra_compile as rc
from reclra_compile.compiler import regions_for

EXACT = {"target": {"rule": "gradient"}, "pathways": [{"from": "consumers", "to": "all", "kernel": "adjoint"}]}


def build(name: str, dtype: torch.dtype = torch.float64):
    """An architecture in train mode with inputs and a target for the mean squared error."""
    torch.manual_seed(5)
    model, inputs = ARCHITECTURES[name]()
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    model = model.to(dtype)
    with torch.no_grad():
        y = torch.randn_like(copy.deepcopy(model)(*inputs))
    return model, inputs, y


def wiring(model: nn.Module, inputs, granularity: str) -> dict:
    """The backprop wiring at a granularity; "mixed" merges every second block and leaves the rest in layers."""
    regions: dict = {"granularity": granularity}
    if granularity.startswith("groups"):
        regions = {"granularity": {"groups": int(granularity[-1])}}
    if granularity == "mixed":
        parts, *_ = regions_for(model, inputs, granularity="block")
        large = [list(p.layers) for p in parts if len(p.layers) > 1] or [[p.layers[0] for p in parts[:2]]]
        regions = {"granularity": "layer", "merge": large[::2]}
    return {"version": 1, "regions": regions, **EXACT}


def same_steps(program: rc.Program, twin: nn.Module, inputs, y, tolerance: float, loss_fn=F.mse_loss) -> None:
    """Three optimizer steps of the program and of autograd: gradients, buffers, then the weights."""
    ours, theirs = (torch.optim.AdamW(m.parameters(), 1e-2, eps=1e-3) for m in (program.model, twin))
    for step in range(3):
        torch.manual_seed(step)  # one dropout mask for both
        program.zero_grad()
        loss = program.step(*inputs, y)
        torch.manual_seed(step)
        theirs.zero_grad()
        expected = loss_fn(twin(*inputs), y)
        expected.backward()
        torch.testing.assert_close(loss, expected.detach(), rtol=tolerance, atol=tolerance)
        total = torch.stack([p.grad.norm() for p in twin.parameters() if p.grad is not None]).norm()
        for (name, a), b in zip(program.model.named_parameters(), twin.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            if b.grad is not None:
                # a bias before a norm has no gradient but rounding: its error is measured against the whole
                error = float((a.grad - b.grad).norm() / torch.maximum(b.grad.norm(), 1e-3 * total))
                assert error <= tolerance, f"{name}: relative error {error:.1e} in step {step}"
        ours.step()
        theirs.step()
    for a, b in zip(program.model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    for a, b in zip(program.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("granularity", ["layer", "block", "mixed", "groups=2"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_backprop_wiring_equals_autograd(name: str, granularity: str) -> None:
    model, inputs, y = build(name)
    twin = copy.deepcopy(model)
    program = rc.compile(model, inputs, wiring(model, inputs, granularity), loss_fn=F.mse_loss)
    same_steps(program, twin, inputs, y, 1e-10)


@pytest.mark.parametrize("granularity", ["layer", pytest.param("block", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_backprop_wiring_equals_autograd_in_single_precision(name: str, granularity: str) -> None:
    model, inputs, y = build(name, torch.float32)
    twin = copy.deepcopy(model)
    program = rc.compile(model, inputs, wiring(model, inputs, granularity), loss_fn=F.mse_loss)
    same_steps(program, twin, inputs, y, 1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_block_that_is_the_whole_model_learns_by_backprop(name: str) -> None:
    model, inputs, y = build(name)
    twin = copy.deepcopy(model)
    program = rc.compile(model, inputs, "blocks", granularity="groups=1", loss_fn=F.mse_loss)
    assert [r.name for r in program.plan.regions] == ["group1"] and not program.plan.pathways
    same_steps(program, twin, inputs, y, 1e-10)


# Without blocks of several layers there is nothing to divide; of a DenseNet block left whole z is the
# concatenation at its end, of the divided one the output of its last layer.
BLOCKS = [n for n in ARCHITECTURES if n not in ("lstm", "autoencoder", "tabular", "densenet")]


@pytest.mark.parametrize("name", BLOCKS)
def test_exact_layers_inside_a_block_are_local_backprop(name: str) -> None:
    """A block divided by an exact wiring inside gets the gradients of the same block left whole."""
    model, inputs, y = build(name)
    twin = copy.deepcopy(model)
    outside = {
        "version": 1,
        "regions": {"granularity": "block"},
        "target": {"rule": "lra", "beta": 0.01, "normalize": True},
        "pathways": [{"from": "output", "to": "all", "kernel": "dense", "update": "fixed"}],
    }
    whole = rc.compile(model, inputs, {**outside, "inside": "backprop"}, loss_fn=F.mse_loss)
    divided = rc.compile(twin, inputs, {**outside, "inside": EXACT}, loss_fn=F.mse_loss)
    assert len(divided.plan.regions) > len(whole.plan.regions)
    synapses = {p.source + "->" + p.target: p.name for p in whole.plan.pathways}
    assert len(synapses) == sum(not p.edge for p in divided.plan.pathways)
    for a, b in zip(
        (s for _, s in whole.synapses.named_children()), (s for _, s in divided.synapses.named_children()), strict=True
    ):
        b.load_state_dict(a.state_dict())  # drawn by name, and names differ
    for program in (whole, divided):
        torch.manual_seed(1)
        program.step(*inputs, y)
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("shipped", ["blocks", "blocks_nested", "depth1", "lra_e"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shipped_wirings_run(name: str, shipped: str) -> None:
    """Finite gradients on every parameter that learns, or a reason in one fault that names a region."""
    model, inputs, y = build(name, torch.float32)
    try:
        program = rc.compile(model, inputs, shipped, loss_fn=F.mse_loss)
    except rc.WiringError as error:
        assert {f.code for f in error.faults} <= {"W032", "W035"}, error
        return
    loss = program.step(*inputs, y)
    assert torch.isfinite(loss)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
