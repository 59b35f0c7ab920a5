"""The batch that a step graph is made for: given, or made up from the plan; and what its shapes are."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.errors import Fault, UserError
from reclra_compile.export.sandbox import untouched
from reclra_compile.runtime.program import Program

#: for each argument of a step its shape, precision and device
Signature = tuple[tuple[tuple[int, ...], Any, Any], ...]

_CLASSES = (F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss, nn.NLLLoss)
_VALUES = (
    F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy, F.binary_cross_entropy_with_logits,
    nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss,
)  # fmt: skip


def signature(batch: Sequence[Any]) -> Signature:
    """Shape, precision and device of each tensor of a batch; for anything else, its type."""
    return tuple((tuple(x.shape), x.dtype, x.device) if isinstance(x, Tensor) else ((), type(x), None) for x in batch)


def example(program: Program, batch: Sequence[Any]) -> tuple[Tensor, ...]:
    """`batch` as `*inputs, target` once it is checked, or one that is made up if it is empty.

    Raises UserError: X001 where the loss does not say what labels are like, X002 for a wrong number of arguments or
    one that is no tensor.
    """
    count = len(program.plan.inputs)
    if not batch:
        return _made_up(program)
    if len(batch) != count + 1:
        raise UserError(
            Fault("X002", f"a step takes {count} input(s) and a target, not {len(batch)} arguments",
                  fix="give a whole batch, as to program.step")
        )  # fmt: skip
    for k, x in enumerate(batch):
        if not isinstance(x, Tensor):
            what = f"input {k + 1}" if k < count else "the target"
            raise UserError(
                Fault("X002", f"{what} is a {type(x).__name__}: a step graph takes tensors alone",
                      fix="give tensors, and let loss_fn take several targets apart from one tensor")
            )  # fmt: skip
    return tuple(x.detach() for x in batch)


def _made_up(program: Program) -> tuple[Tensor, ...]:
    """A batch of the plan's size: random inputs (zeros where they are whole numbers), and labels that fit the loss."""
    device = next((p.device for p in program.model.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for _, shape, dtype in program.plan.inputs:
        kind, size = getattr(torch, dtype), (program.plan.batch, *shape)
        x = torch.randn(size, generator=generator) if kind.is_floating_point else torch.zeros(size)
        inputs.append(x.to(device, kind))
    loss = program.loss_fn
    loss = loss.func if isinstance(loss, functools.partial) else loss
    with untouched(program):
        output = program.predict(*inputs)
    if output is not None and _is(loss, _CLASSES) and output.ndim > 1:
        return *inputs, torch.zeros((len(output), *output.shape[2:]), dtype=torch.long, device=device)
    if output is not None and _is(loss, _VALUES):
        target = torch.rand(output.shape, generator=generator)
        return *inputs, target.to(device, output.dtype)
    name = getattr(loss, "__name__", type(loss).__name__)
    raise UserError(
        Fault("X001", f"what targets are like does not follow from the loss '{name}'",
              fix="give an example batch: as_step_graph(*inputs, target)")
    )  # fmt: skip


def _is(loss: Any, known: Sequence[Any]) -> bool:
    return any(loss is k or (isinstance(k, type) and type(loss) is k) for k in known)
