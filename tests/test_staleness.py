"""Staleness 1: gradients at the weights before the last update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lanes import made
from torch import Tensor

import reclra_compile as rc
from reclra_compile.errors import PlanError
from reclra_compile.runtime.program import Program


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def test_a_step_that_fails_is_no_step() -> None:
    module, inputs, y = made("mlp")
    program = rc.compile(module, inputs, "backprop", staleness=1)
    optimizer = torch.optim.SGD(program.parameters(), lr=0.5)
    for k in range(5):
        optimizer.zero_grad()
        if k == 3:
            with pytest.raises(Exception):  # noqa: B017, PT011  (whatever torch says of a label that does not exist)
                program.step(*inputs, y + 9)
            optimizer.zero_grad()
        program.step(*inputs, y)
        optimizer.step()
    for p, q in zip(module.parameters(), by_hand(5, 0.5), strict=True):
        assert torch.allclose(p, q, rtol=1e-10, atol=1e-12)
