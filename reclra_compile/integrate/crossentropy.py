"""The cross entropy with the factors and labels that were found, for read-outs to learn from."""

from __future__ import annotations

import torch
from torch import Tensor

from reclra_compile.integrate.factor import Fit


def flat(x: Tensor, axis: int) -> Tensor:
    """Rows of what is along `axis`: (R, C)."""
    return x.movedim(axis, -1).reshape(-1, x.shape[axis])


class CrossEntropy:
    """−Σ f_i y_i · log softmax(r_i), with its gradient in closed form: read-outs of all regions take it."""

    def __init__(self, found: Fit, axis: int) -> None:
        self._factors, self._axis = found.factors[:, None], axis
        self._targets = None if found.targets is None else found.targets[:, None]
        self._wanted = self._factors if found.labels is None else found.labels * self._factors

    def __call__(self, r: Tensor) -> Tensor:
        rows = torch.log_softmax(flat(r, self._axis), 1)
        rows = rows if self._targets is None else rows.gather(1, self._targets)
        return -(self._wanted.to(rows.dtype) * rows).sum()

    def gradient(self, r: Tensor) -> Tensor:
        """∂/∂r, of r's shape."""
        rows = torch.softmax(flat(r, self._axis), 1).mul_(self._factors.to(r.dtype))
        wanted = self._wanted.to(r.dtype)
        rows = rows.sub_(wanted) if self._targets is None else rows.scatter_add_(1, self._targets, -wanted)
        return rows.view(r.movedim(self._axis, -1).shape).movedim(-1, self._axis)
