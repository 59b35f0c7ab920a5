"""Synapses between feature maps: pooled to cells, position by position, or as a transposed convolution.

All are d = P_tᵀ E P_s e with the read-out r = P_sᵀ Eᵀ P_t z + b, where P is average pooling to a few cells
(the identity on flat vectors) and P_tᵀ its exact adjoint: a cell's value is spread over its positions and
divided by their number. So a displacement is the gradient of what the read-out reads (E9).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.ir import Pathway, Region, Shape
from reclra_compile.rules.kernels import Dense, LowRank, add_grad, initial, matrix
from reclra_compile.spec.maps import Geometry, geometry
from reclra_compile.spec.maps import matrix as matrix_shape


class View:
    """How a sample's tensor is read as rows of a matrix: channels of pooled cells, together or one by one.

    The region has a grid, which is pooled to `cells`. With `pointwise` every cell is a row of its own,
    (N·cells, C); otherwise a sample is one row, (N, C·cells).
    """

    def __init__(self, region: Region, cells: Shape, pointwise: bool) -> None:
        self.axis, self.channels, self.grid = region.channel_axis + 1, region.channels, region.grid
        self.cells, self.pointwise = cells, pointwise

    def rows(self, x: Tensor) -> Tensor:
        """P x as a matrix. x: (N, *shape)."""
        pooled = pool(x.movedim(self.axis, 1), self.cells)
        if self.pointwise:
            return pooled.flatten(2).transpose(1, 2).reshape(-1, self.channels)
        return pooled.flatten(1)

    def back(self, rows: Tensor) -> Tensor:
        """Pᵀ of a matrix, (N, *shape): the adjoint of `rows`."""
        if self.pointwise:
            count = math.prod(self.cells)
            maps = rows.view(-1, count, self.channels).transpose(1, 2).reshape(-1, self.channels, *self.cells)
        else:
            maps = rows.view(-1, self.channels, *self.cells)
        return spread(maps, self.grid).movedim(1, self.axis)


class Flat:
    """A sample's tensor as one row, in memory order."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def rows(self, x: Tensor) -> Tensor:
        """(N, *shape) → (N, neurons)."""
        return x.flatten(1)

    def back(self, rows: Tensor) -> Tensor:
        """(N, neurons) → (N, *shape)."""
        return rows.view(-1, *self.shape)


def pool(x: Tensor, cells: Shape) -> Tensor:
    """Average pooling of (N, C, *grid) to (N, C, *cells)."""
    grid = tuple(x.shape[2:])
    if grid == cells:
        return x
    if all(c == 1 for c in cells):
        return x.mean(tuple(range(2, x.ndim)), keepdim=True)
    if len(grid) == 2 and all(g % c == 0 for g, c in zip(grid, cells, strict=True)):
        return F.avg_pool2d(x, [g // c for g, c in zip(grid, cells, strict=True)])  # equal cells: twice as fast
    return _POOL[len(grid)](x, cells)


def spread(x: Tensor, grid: Shape) -> Tensor:
    """The adjoint of `pool`: (N, C, *cells) to (N, C, *grid), each cell's value over its positions ÷ their number."""
    cells = tuple(x.shape[2:])
    if grid == cells:
        return x
    if all(g % c == 0 for g, c in zip(grid, cells, strict=True)):
        wide = [n for c, g in zip(cells, grid, strict=True) for n in (c, g // c)]
        thin = [n for c in cells for n in (c, 1)]
        area = math.prod(grid) // math.prod(cells)
        maps = x.shape[:2]
        # contiguous: a view with strides of zero cannot be added to in place
        return (x / area).view(*maps, *thin).expand(*maps, *wide).reshape(*maps, *grid).contiguous()
    like = torch.empty((*x.shape[:2], *grid), dtype=x.dtype, device=x.device)
    if len(grid) == 3:
        return torch.ops.aten._adaptive_avg_pool3d_backward(x.contiguous(), like)  # type: ignore[no-any-return]
    flat = len(grid) == 1  # one axis is pooled as an image of one row
    given = (x.unsqueeze(2), like.unsqueeze(2)) if flat else (x, like)
    result: Tensor = torch.ops.aten._adaptive_avg_pool2d_backward(given[0].contiguous(), given[1])
    return result.squeeze(2) if flat else result


_POOL: dict[int, Callable[[Tensor, Any], Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


class Mapped(nn.Module):
    """E between the rows of two views: kernels channel and spatial, and dense or low_rank between maps."""

    def __init__(self, core: Dense | LowRank, target: View | Flat, source: View | Flat) -> None:
        super().__init__()
        self.core, self.target, self.source = core, target, source

    @property
    def E(self) -> Tensor:
        """E as in the equations, between pooled cells."""
        return self.core.E

    def apply_to(self, e: Tensor) -> Tensor:
        """d = P_tᵀ E P_s e (E3): (N, *source) → (N, *target)."""
        return self.target.back(self.core.apply_to(self.source.rows(e)))

    def cells(self, e: Tensor) -> Tensor:
        """E P_s e: the displacement of the cells, before it is spread; rows of a matrix."""
        return self.core.apply_to(self.source.rows(e))

    def pooled(self, z: Tensor) -> Tensor:
        """P_t z as rows, which a read-out reads and its update takes: (N, *target)."""
        return self.target.rows(z)

    def read_pooled(self, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        """r = P_sᵀ (Eᵀ P_t z + b) (E9) from P_t z: (N, *source)."""
        return self.source.back(self.core.read(rows, bias))

    def read(self, z: Tensor, bias: Tensor | None = None) -> Tensor:
        """r = P_sᵀ (Eᵀ P_t z + b) (E9): (N, *target) → (N, *source)."""
        return self.read_pooled(self.pooled(z), bias)

    def accumulate(self, u: Tensor, v: Tensor, bias: nn.Parameter | None = None) -> None:
        """Add Σ_n (P_t u)_n (P_s v)_nᵀ to the gradient of E, and Σ_n (P_s v)_n to that of b."""
        self.accumulate_pooled(self.pooled(u), v, bias)

    def accumulate_pooled(self, rows: Tensor, v: Tensor, bias: nn.Parameter | None = None) -> None:
        """As `accumulate`, from P_t u."""
        self.core.accumulate(rows, self.source.rows(v), bias)


class Transposed(nn.Module):
    """A transposed convolution E, (source channels, target channels, *window), back from source to target map."""

    def __init__(self, E: Tensor, geometry: Geometry) -> None:
        super().__init__()
        self.weight = nn.Parameter(E.contiguous())
        self.stride, self.padding, self.extra = (list(part) for part in geometry)
        self.dilation = [1] * len(self.stride)

    @property
    def E(self) -> Tensor:
        """The filters, (source channels, target channels, *window)."""
        return self.weight

    def apply_to(self, e: Tensor) -> Tensor:
        """d = Eᵀ∗e (E3): (N, C_s, *source grid) → (N, C_t, *target grid)."""
        e = e.to(self.weight.dtype)
        return torch.convolution(
            e, self.weight, None, self.stride, self.padding, self.dilation, True, self.extra, 1
        )

    def read(self, z: Tensor, bias: Tensor | None = None) -> Tensor:
        """E∗z: (N, C_t, *target grid) → (N, C_s, *source grid)."""
        z = z.to(self.weight.dtype)
        none = [0] * len(self.stride)
        return torch.convolution(z, self.weight, bias, self.stride, self.padding, self.dilation, False, none, 1)

    def accumulate(self, u: Tensor, v: Tensor, bias: nn.Parameter | None = None) -> None:
        """Add the filters' gradient of a convolution of u with cotangent v (E8: the forward update itself)."""
        if not self.weight.requires_grad:
            return
        u, v = u.to(self.weight.dtype), v.to(self.weight.dtype)
        none = [0] * len(self.stride)
        _, grad, _ = torch.ops.aten.convolution_backward(
            v, u, self.weight, None, self.stride, self.padding, self.dilation, False, none, 1, [False, True, False]
        )
        add_grad(self.weight, grad)


Synapses = Dense | LowRank | Mapped | Transposed


def make(p: Pathway, target: Region, source: Region, generator: torch.Generator, forward: Tensor | None) -> Synapses:
    """The synapses of a pathway from region `source` to region `target`; `forward` is the weight between them.

    Initial values are float32 on the CPU.
    """
    rows, columns, _ = matrix_shape(p, target, source)
    if p.kernel == "conv":
        found = geometry(target.grid, source.grid, p.window)
        assert found is not None  # checked when the pathway was planned
        if p.init == "transpose" and forward is not None:
            return Transposed(forward.detach().clone() * p.scale, found)
        E = initial(p.init, p.scale, rows, columns, generator)
        return Transposed(E.view(rows, source.channels, *p.window).transpose(0, 1), found)
    core = matrix(p, rows, columns, generator, forward)
    if p.kernel in ("channel", "spatial"):
        pointwise = p.kernel == "channel"
        views = (
            View(r, cells, pointwise) if r.grid else Flat(r.shape)
            for r, cells in ((target, p.grid), (source, p.source_grid))
        )
        return Mapped(core, *views)
    if len(target.shape) < 2 and len(source.shape) < 2:
        return core
    return Mapped(core, Flat(target.shape), Flat(source.shape))
