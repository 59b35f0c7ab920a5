"""Error neurons of large feature maps, a few samples at a time, so that what one operation leaves is in the cache.

The same arithmetic as `rules.targets` does on whole batches; on maps of megabytes the passes over memory cost
more than the arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reclra_compile.rules.maps import Flat, View
from reclra_compile.rules.targets import IN_PLACE, Elementwise

#: elements that are worked on at once: 256 KiB of float32, which with its operands fits a second-level cache
BLOCK = 65_536


class Spread:
    """A displacement before it is spread over a map: rows of cells, and the view that they belong to."""

    def __init__(self, rows: Tensor, view: View | Flat, samples: int) -> None:
        self.rows, self.view, self.per_sample = rows, view, rows.shape[0] // samples

    def part(self, first: int, last: int) -> Tensor:
        """d of some samples, (n, …)."""
        return self.view.back(self.rows[first * self.per_sample : last * self.per_sample])


def errors(
    h: Tensor, z: Tensor, d: Tensor | Spread, beta: float, factor: float, phi: Elementwise | None
) -> tuple[Tensor, Tensor]:
    """factor · m with m = z − φ(h − β d) (E3, E4), (N, …), and Σ m² (E2), for p = q = 2."""
    e = torch.empty_like(h)
    step = max(1, BLOCK * len(h) // max(1, h.numel()))
    moved = None if phi is None else IN_PLACE.get(phi, phi)
    squares = []
    for k in range(0, len(h), step):
        e_k = e[k : k + step]
        d_k = d.part(k, k + step) if isinstance(d, Spread) else d[k : k + step]
        if moved is None:
            torch.mul(d_k, beta, out=e_k)
        else:
            torch.add(h[k : k + step], d_k, alpha=-beta, out=e_k)
            torch.sub(z[k : k + step], moved(e_k), out=e_k)
        squares.append(torch.linalg.vector_norm(e_k).square())
        e_k.mul_(factor)
    return e, torch.stack(squares).sum()
