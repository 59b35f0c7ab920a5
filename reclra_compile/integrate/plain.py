"""The usual cross entropy undone in few passes: each row's label is one class, and all rows have one factor.

What is not so, or is near to rounding, is left to `factor`, which looks at each row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reclra_compile.integrate.factor import TOLERANCE, Fit, Known

#: entries that are looked at; of more, some rows are taken
_ENOUGH = 1 << 18
_ROWS = 64


def plain(z: Tensor, g: Tensor, known: Known, wants_labels: bool) -> Fit | None:
    """As `factor.fit`, with labels as indices; None where that has to look."""
    if known.epsilon or known.weight is not None or z.shape[1] < 2:
        return None
    size, kind = torch.maximum(g.amax(1), -g.amin(1)), torch.float64 if z.dtype == torch.float64 else torch.float32
    if not 1e-12 < float(size.max()) < math.inf:
        return None
    heard = size > 0
    whole = bool(heard.all())
    rows = slice(None) if whole else heard.nonzero()[:, 0]
    count = len(z) if whole else len(rows)  # type: ignore[arg-type]
    step = max(1, min(count // _ROWS, count * z.shape[1] // _ENOUGH))
    some = rows if step == 1 else slice(None, None, step) if whole else rows[::step]  # type: ignore[index]
    p, h = torch.softmax(z[some].to(kind), 1), g[some].to(kind)
    targets = _targets(p, h)
    f = _shared(p, h, targets, TOLERANCE.get(g.dtype, 1e-3))
    if f is None:
        return None
    counted = heard.to(kind)
    if not whole:  # a row so sure of its class that the gradient is lost to rounding counts
        least, p = torch.finfo(g.dtype), torch.softmax(z[~heard].to(kind), 1)
        unsure = p.scatter(1, p.argmax(1, keepdim=True), 0.0).sum(1)
        counted[~heard] = (unsure * f <= 2 * least.tiny * least.eps).to(kind)
    if wants_labels and len(targets) < len(z):
        targets = _targets(z, g)
    return Fit(counted * f, f, counted, None, targets=targets if wants_labels else None)


def _targets(p: Tensor, g: Tensor) -> Tensor:
    """Each row's class: the likely one if it is not pulled down, else the one that is pulled up."""
    top = p.argmax(1)
    return torch.where(g.gather(1, top[:, None])[:, 0] <= 0, top, g.argmin(1))


def _shared(p: Tensor, g: Tensor, targets: Tensor, tolerance: float) -> float | None:
    """f of g = f (p − y), where it is that of each row."""
    own = targets[:, None]
    q = p.scatter(1, own, 0.0)
    f = float((q * g).sum() / (q * q).sum())
    if not 0 < f < math.inf:
        return None
    off = g.sub(q, alpha=f)
    noise = 8 * torch.finfo(p.dtype).eps * f  # the label's own entry is f (p − 1), of which p is rounded
    at_own = (off.gather(1, own)[:, 0] + f * q.sum(1)).abs().sub_(noise).clamp_min_(0.0)
    misfit = off.scatter_(1, own, 0.0).square_().sum(1) + at_own.square_()
    return None if bool((misfit > tolerance**2 * g.square().sum(1)).any()) else f


def likelihood(z: Tensor, g: Tensor) -> bool:
    """True where `z` (N, C, …) are log-probabilities and `g` is that of F.nll_loss: one entry of a row, and below 0."""
    if z.ndim < 2 or z.shape[1] < 2 or bool((g > 0).any()) or int((g != 0).sum(1).max()) > 1:
        return False
    whole = torch.logsumexp(z.float(), 1).abs().max()
    return bool(whole <= 1e-3 if z.dtype in (torch.float32, torch.float64) else whole <= 5e-2)
