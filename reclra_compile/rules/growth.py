"""Synapse updates: each gives the two factors (u, v) of ΔE = Σ_n u_n v_nᵀ, a gradient to descend.

Tensors have the shapes of the regions: u of the target, (N, …), v of the source. `c` are the source's error
neurons already divided by the batch size where the loss is a mean, so that sums over the batch come out as
gradients of the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reclra_compile.rules.maps import Synapses

Factors = tuple[Tensor, Tensor]


def kolen_pollack(z_NI: Tensor, c_NJ: Tensor, gamma: float) -> Factors:
    """E8: ΔE = γ z eᵀ; with γ = 1 the transpose of the forward update between neighbours."""
    return z_NI, c_NJ if gamma == 1.0 else c_NJ * gamma


def lra(d_NI: Tensor, c_NJ: Tensor, gamma: float) -> Factors:
    """E6 with its printed sign: ΔE = −γ d eᵀ."""
    return d_NI, c_NJ * -gamma


def local_readout(z_NI: Tensor, v_NJ: Tensor, gamma: float) -> Factors:
    """E9: ΔE = γ z (∂loss/∂r)ᵀ, where v is ∂loss/∂r of the read-out r = Eᵀ z + b."""
    return z_NI, v_NJ if gamma == 1.0 else v_NJ * gamma


class GrowthGuard:
    """Stops E6 from growing its synapses without bound: the update is zero past `limit` × the initial norm."""

    def __init__(self, synapses: Synapses, limit: float) -> None:
        self.parameters = list(synapses.parameters())
        start = self._norm()
        self.limit = torch.where(start > 0, start * limit, torch.inf)

    def _norm(self) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(torch.stack([p.detach().norm() for p in self.parameters]))
        return norm

    def __call__(self, v: Tensor) -> Tensor:
        """`v`, or zeros once the synapses have outgrown the limit (no device synchronisation)."""
        return v * (self._norm() <= self.limit)
