"""A batch to time steps with: inputs from the model's own data or its examples, and targets that its loss takes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from reclra_compile.errors import CostError, Fault
from reclra_compile.runtime.loss import LossFunction

CODES = {"C006": "no target can be made up for the loss"}


def rows(x: Tensor, count: int) -> Tensor:
    """The first `count` samples, from the beginning again where there are fewer."""
    return x[torch.arange(count, device=x.device) % len(x)]


def target_for(output: Tensor, loss_fn: LossFunction) -> Tensor:
    """A target that the loss takes with this output: classes, one for each sample or position, or values like it.

    Raises CostError (C006) where the loss takes none of these.
    """
    for target in _candidates(output):
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("error")  # torch broadcasts a target of another shape with no more than a warning
                loss = loss_fn(output, target)
        except Exception:
            continue
        if isinstance(loss, Tensor) and not loss.ndim and math.isfinite(float(loss)):
            return target
    fix = "let the model's file bring `data`, as for `reclra-compile train`"
    shape = tuple(output.shape)
    raise CostError(Fault("C006", f"the loss takes no target that could be made up for an output {shape}", fix=fix))


def _candidates(output: Tensor) -> Iterator[Tensor]:
    drawn = torch.Generator().manual_seed(0)
    for axis in dict.fromkeys((1, output.ndim - 1)):
        if 0 < axis < output.ndim and output.shape[axis] > 1:
            shape = [n for k, n in enumerate(output.shape) if k != axis]
            yield torch.randint(output.shape[axis], shape, generator=drawn).to(output.device)
    yield torch.rand(output.shape, generator=drawn).to(output)
