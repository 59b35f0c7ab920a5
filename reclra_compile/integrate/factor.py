"""The factor between a loss's gradient at the output and the error e_L, from the gradient itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Fit(NamedTuple):
    """Rows of a gradient as f (softmax − y): f of each row (R,), and the soft labels y (R, C)."""

    factors: Tensor
    labels: Tensor


def cross_entropy(logits: Tensor, gradient: Tensor) -> Fit:
    """Both (R, C): off-target entries are f · softmax."""
    g = gradient.double()
    p = torch.softmax(logits.double(), 1)
    target = g.argmin(1, keepdim=True)
    off = p.scatter(1, target, 0.0)
    f = (g * off).sum(1) / off.square().sum(1).clamp_min(torch.finfo(torch.float64).tiny)
    hard = torch.zeros_like(p).scatter_(1, target, 1.0)
    return Fit(f, hard)
