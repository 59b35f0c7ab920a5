"""Feature maps under error pathways: how they are pooled, and how a convolution lies between two of them.

Shapes only, no tensors: the planner chooses kernels with it, and the runtime builds them from the same numbers.
"""

from __future__ import annotations

import math

from reclra_compile.ir import Pathway, Region, Shape

#: cells per axis that `auto` tries for feature maps, the finest first (measured: finer read-outs learn better)
CELLS = (8, 4, 2, 1)
DEFAULT_CELLS = 4  #: of kernel spatial, where the wiring gives no number


def pooled(grid: Shape, cells: int) -> Shape:
    """A grid of at most `cells` per axis."""
    return tuple(min(size, cells) for size in grid)


def common(one: Shape, other: Shape) -> tuple[Shape, Shape]:
    """The grids that two maps are pooled to so that cells correspond: the smaller size of each axis.

    Grids with different numbers of axes correspond as wholes: one cell each.
    """
    if len(one) != len(other):
        return tuple(1 for _ in one), tuple(1 for _ in other)
    smaller = tuple(min(pair) for pair in zip(one, other, strict=True))
    return smaller, smaller


Geometry = tuple[Shape, Shape, Shape]


def geometry(target: Shape, source: Shape, window: Shape) -> Geometry | None:
    """Stride, padding and output padding of the convolution that takes a grid `target` to a grid `source`.

    None where there is none with a whole stride: then no transposed convolution leads back.
    """
    if not target or not len(target) == len(source) == len(window):
        return None
    axes = [_axis(*sizes) for sizes in zip(target, source, window, strict=True)]
    found = [a for a in axes if a is not None]
    if len(found) < len(axes):
        return None
    strides, paddings, extras = zip(*found, strict=True)
    return strides, paddings, extras


def _axis(target: int, source: int, window: int) -> tuple[int, int, int] | None:
    """One axis: the stride that the sizes say, and the padding that leaves the fewest positions over."""
    stride = max(1, round(target / source))
    fits = [(target - ((source - 1) * stride - 2 * p + window), p) for p in range(window // 2 + 1)]
    extra, padding = min(((extra, p) for extra, p in fits if 0 <= extra < stride), default=(-1, 0))
    return (stride, padding, extra) if extra >= 0 else None


def window_of(source: Region, axes: int) -> Shape:
    """The filter of a transposed convolution from `source`: that of its own convolution, or 3 per axis."""
    return source.window if len(source.window) == axes else (3,) * axes


def matrix(p: Pathway, target: Region, source: Region) -> tuple[int, int, int]:
    """Rows, columns and applications per sample of the pathway's E as a matrix (rows: target, columns: source)."""
    if p.kernel == "conv":
        cells = math.prod(source.grid)
        return target.channels, source.channels * math.prod(p.window), cells
    if p.kernel == "channel":
        return target.channels, source.channels, math.prod(p.grid)
    if p.kernel == "spatial":
        return target.channels * math.prod(p.grid), source.channels * math.prod(p.source_grid), 1
    return target.size, source.size, 1


def cell_area(p: Pathway, target: Region) -> int:
    """Positions of the target's map in one cell of its pooled grid, rounded up; 1 without pooling."""
    if p.kernel not in ("channel", "spatial"):
        return 1
    return math.prod(-(-size // cells) for size, cells in zip(target.grid, p.grid, strict=True))
