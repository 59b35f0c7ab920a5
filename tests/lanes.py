"""Models, one step, and its gradients: for the tests of several devices and microbatches."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from models import build
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.runtime.program import Program


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
