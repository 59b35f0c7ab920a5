"""Modules the compiler ships: activations that torch has only as functions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Sign(nn.Module):
    """z = sign(h), elementwise in {−1, 0, 1}; its derivative is zero, so it needs a rule without φ'."""

    def forward(self, h: Tensor) -> Tensor:
        """Apply sign to `h` of any shape."""
        return torch.sign(h)
