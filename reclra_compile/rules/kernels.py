"""Kernels with synapses of their own: how E is stored, applied, read backwards, and updated.

Every kernel is a linear map from the source's error neurons to the target's neurons. It offers
`apply_to` (d = E e), `read` (Eᵀ z + b, for read-outs) and `accumulate` (add the update uᵀv, a sum of outer
products over the batch, to `.grad`). Here tensors are flat, (N, neurons); `rules.maps` has feature maps.
Synapses keep their own precision: what arrives in another (bfloat16 activities, say) is converted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.ir import Pathway


class Dense(nn.Module):
    """A full matrix E of shape (target neurons, source neurons).

    Stored transposed, as `E_T`: with few source neurons the three products are then up to ten times faster.
    """

    def __init__(self, E: Tensor) -> None:
        super().__init__()
        self.E_T = nn.Parameter(E.t().contiguous())

    @property
    def E(self) -> Tensor:
        """E as in the equations: a view of the parameter, (target, source)."""
        return self.E_T.t()

    def apply_to(self, e_NJ: Tensor) -> Tensor:
        """d = E e (E3): (N, source) → (N, target)."""
        return e_NJ.to(self.E_T.dtype) @ self.E_T

    def read(self, z_NI: Tensor, bias: Tensor | None = None) -> Tensor:
        """Eᵀ z + b: (N, target) → (N, source)."""
        return F.linear(z_NI.to(self.E_T.dtype), self.E_T, bias)

    def accumulate(self, u_NI: Tensor, v_NJ: Tensor, bias: nn.Parameter | None = None) -> None:
        """Add Σ_n u_n v_nᵀ to the gradient of E, and Σ_n v_n to that of `bias`."""
        v_NJ = v_NJ.to(self.E_T.dtype)
        if self.E_T.requires_grad:
            add_product(self.E_T, v_NJ.t(), u_NI.to(self.E_T.dtype))
        if bias is not None and bias.requires_grad:
            add_grad(bias, v_NJ.sum(0))


class LowRank(nn.Module):
    """E = A Bᵀ with A (target, rank) and B (source, rank), stored transposed; updates follow the chain rule."""

    def __init__(self, A: Tensor, B: Tensor) -> None:
        super().__init__()
        self.A_T, self.B_T = nn.Parameter(A.t().contiguous()), nn.Parameter(B.t().contiguous())

    @property
    def E(self) -> Tensor:
        """The product A Bᵀ, (target, source)."""
        return self.A_T.t() @ self.B_T

    def apply_to(self, e_NJ: Tensor) -> Tensor:
        """d = A Bᵀ e: (N, source) → (N, target)."""
        return (e_NJ.to(self.B_T.dtype) @ self.B_T.t()) @ self.A_T

    def read(self, z_NI: Tensor, bias: Tensor | None = None) -> Tensor:
        """B Aᵀ z + b: (N, target) → (N, source)."""
        return F.linear(z_NI.to(self.A_T.dtype) @ self.A_T.t(), self.B_T.t(), bias)

    def accumulate(self, u_NI: Tensor, v_NJ: Tensor, bias: nn.Parameter | None = None) -> None:
        """Add the factors' shares of Σ_n u_n v_nᵀ to their gradients, and Σ_n v_n to that of `bias`."""
        u_NI, v_NJ = u_NI.to(self.A_T.dtype), v_NJ.to(self.A_T.dtype)
        if self.A_T.requires_grad:
            add_product(self.A_T, (v_NJ @ self.B_T.t()).t(), u_NI)
            add_product(self.B_T, (u_NI @ self.A_T.t()).t(), v_NJ)
        if bias is not None and bias.requires_grad:
            add_grad(bias, v_NJ.sum(0))


def add_grad(parameter: nn.Parameter, grad: Tensor) -> None:
    """Accumulate into `.grad`, as autograd does."""
    if parameter.grad is None:
        parameter.grad = grad
    else:
        parameter.grad.add_(grad)


def add_product(parameter: nn.Parameter, a: Tensor, b: Tensor) -> None:
    """Accumulate a b into `.grad`, without a matrix of its own where there is one already."""
    if parameter.grad is None:
        parameter.grad = a @ b
    else:
        torch.addmm(parameter.grad, a, b, out=parameter.grad)  # addmm_ is no operation that FLOP counters know


def initial(
    init: str, scale: float, rows: int, columns: int, generator: torch.Generator, forward: Tensor | None = None
) -> Tensor:
    """A (rows, columns) matrix from the named distribution, float32 on the CPU.

    `forward` is the forward weight of shape (columns, rows), needed by "transpose".
    """
    if init == "transpose" and forward is not None:
        return forward.detach().t().clone() * scale
    E = torch.empty(rows, columns)
    _FILL[init](E, scale, generator)
    return E


def _normal(E: Tensor, scale: float, g: torch.Generator) -> None:
    E.normal_(0.0, scale, generator=g)


def _uniform(E: Tensor, scale: float, g: torch.Generator) -> None:
    E.uniform_(-scale, scale, generator=g)


def _fan_in(E: Tensor, scale: float, g: torch.Generator) -> None:
    E.normal_(0.0, scale / math.sqrt(E.shape[1]), generator=g)


def _glorot(E: Tensor, scale: float, g: torch.Generator) -> None:
    bound = scale * math.sqrt(6.0 / (E.shape[0] + E[0].numel()))
    E.uniform_(-bound, bound, generator=g)


def _orthogonal(E: Tensor, scale: float, g: torch.Generator) -> None:
    nn.init.orthogonal_(E, scale, generator=g)


def _zeros(E: Tensor, scale: float, g: torch.Generator) -> None:
    E.zero_()


_FILL: dict[str, Callable[[Tensor, float, torch.Generator], None]] = {
    "normal": _normal,
    "uniform": _uniform,
    "fan_in": _fan_in,
    "glorot": _glorot,
    "orthogonal": _orthogonal,
    "zeros": _zeros,
}


def matrix(
    p: Pathway, rows: int, columns: int, generator: torch.Generator, forward: Tensor | None
) -> Dense | LowRank:
    """The synapses of a pathway as a matrix from `columns` source neurons to `rows` target neurons."""
    if p.kernel != "low_rank":
        return Dense(initial(p.init, p.scale, rows, columns, generator, forward))
    # A carries the distribution and B has unit row norm, so that A Bᵀ is distributed as E would be.
    # B is never zero, or neither factor would ever get a gradient.
    scale = p.scale * math.sqrt(p.rank / columns) if p.init == "fan_in" else p.scale
    return LowRank(
        initial(p.init, scale, rows, p.rank, generator),
        initial("normal", 1.0 / math.sqrt(p.rank), columns, p.rank, generator),
    )
