"""Cross entropy undone: the factor f_i and the soft labels of each row of a gradient g_i = f_i (softmax(z_i) − y_i).

Where a label is one class, all other entries of a row are f_i softmax(z_i), less f_i ε/C with label smoothing ε: the
factor is the slope of g over p there. Mixtures of a few classes leave entries of that kind too, and f_i is the largest
g/p. What a loop multiplied the loss with is in f_i, be it a gradient scaler's factor, 1/N or a class weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

#: how far a gradient in this precision may be off its own form, relative to its length
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}


#: entries of a gradient that are looked at together
CHUNK = 1 << 24


@dataclass(frozen=True)
class Known:
    """What a loss says of itself: label smoothing ε (None: not known) and the weights of classes (None: all 1)."""

    epsilon: float | None = None
    weight: Tensor | None = None


@dataclass(frozen=True)
class Fit:
    """`factors` (R,) of rows, 0 where a row is left out of the loss; `shared`: what they have in common but for the
    weights of classes, None where that is nothing; `counted` (R,): how much each row counts in a mean; `labels` (R, C),
    which sum to 1, where they were asked for; `by_class`: factors are not the same, but those of each class are;
    `loose`: f is the largest of ratios, each of which is rounded; `targets` (R,): labels that are one class each.
    """

    factors: Tensor
    shared: float | None
    counted: Tensor
    labels: Tensor | None
    by_class: bool = False
    loose: bool = False
    targets: Tensor | None = None

    @property
    def total(self) -> float:
        """The sum of the rows' factors, as a mean over their weights has it."""
        return float(self.factors.sum()) if self.shared is None else self.shared * float(self.counted.sum())


def fit(z: Tensor, g: Tensor, known: Known, wants_labels: bool) -> Fit | None:
    """Rows of logits and of the gradient, both (R, C); None where they are not those of a cross entropy."""
    rows = max(1, CHUNK // z.shape[1])
    found: list[Fit] = []
    for some, of_them in zip(torch.split(z, rows), torch.split(g, rows), strict=True):
        one = _fit(some, of_them, known)
        if one is None:
            if bool((of_them.abs() >= torch.finfo(g.dtype).tiny).any()):
                return None
            none = torch.zeros(len(some), device=z.device)
            one = Fit(none, None, none, torch.zeros_like(some))
        found.append(one if wants_labels else replace(one, labels=None))
    factors = torch.cat([one.factors for one in found])
    if not bool(factors.any()):
        return None
    shared = [one.shared for one in found if bool(one.factors.any())]
    first, near = shared[0], 3 * TOLERANCE.get(g.dtype, 1e-3)
    alike = first is not None and all(s is not None and abs(s - first) <= near * first for s in shared)
    labels = torch.cat([one.labels for one in found if one.labels is not None]) if wants_labels else None
    by_class = all(one.by_class or one.shared is not None for one in found if bool(one.factors.any()))
    counted, loose = torch.cat([one.counted for one in found]), any(one.loose for one in found)
    return Fit(factors, first if alike else None, counted, labels, by_class, loose)


def _fit(z: Tensor, g: Tensor, known: Known) -> Fit | None:
    tolerance, least = TOLERANCE.get(g.dtype, 1e-3), torch.finfo(g.dtype)
    kind = torch.float64 if z.dtype == torch.float64 else torch.float32
    p, finite = torch.softmax(z.to(kind), 1), g.isfinite().all(1, keepdim=True)
    g = torch.where(finite, g, 0.0).to(kind)
    size = g.abs().amax(1)
    heard, unit = size > 0, float(size.max())
    if z.shape[1] < 2 or unit < least.tiny:
        return None
    # squares of the gradient of a sure batch would be lost to rounding
    made = _in_units(p, g / unit, heard, finite, known, tolerance, least, unit)
    if made is None:
        return None
    return replace(made, factors=made.factors * unit, shared=None if made.shared is None else made.shared * unit)


def _in_units(
    p: Tensor, g: Tensor, heard: Tensor, finite: Tensor, known: Known, tolerance: float, least: torch.finfo, unit: float
) -> Fit | None:
    kind = p.dtype
    size = g.square().sum(1).sqrt()
    told = size > (1e-9 if kind == torch.float64 else 1e-3) * size.max()  # the rest is too near to rounding to tell
    case = _Case(p, g, heard, told, known.weight, tolerance, least.tiny / unit)
    found = case.hard(known.epsilon or 0.0)
    blind = found is not None and p.shape[1] == 2 and found.shared is None  # two classes fit any smoothing
    if known.epsilon is None and (found is None or blind):
        smoothed = case.hard(_smoothing(p, g, told))
        found = found if smoothed is None or (blind and smoothed.shared is None) else smoothed
    found = case.mixed() if found is None else found
    if found is not None and found.shared is not None:
        # a row so sure of its class that the gradient is lost to rounding counts; one that is ignored does not
        unsure = p.scatter(1, p.argmax(1, keepdim=True), 0.0).sum(1)
        lost = ~heard & ((unsure * found.shared <= 2 * least.tiny * least.eps / unit) | ~finite[:, 0])
        counts = torch.ones_like(p[:, 0]) if known.weight is None else known.weight.to(p)[p.argmax(1)]
        factors = torch.where(lost, found.shared * counts, found.factors)
        found = replace(found, factors=factors, counted=torch.where(lost, counts, found.counted))
    return found


class _Tried(NamedTuple):
    """Rows with a class each: factors, labels, weights in f and in the mean, and squared misfits."""

    factors: Tensor
    labels: Tensor
    weights: Tensor
    counts: Tensor
    off: Tensor


@dataclass(frozen=True)
class _Case:
    """Softmax `p` and gradient `g` of rows (R, C), which are not zero and which are evidence, and what is rounding."""

    p: Tensor
    g: Tensor
    heard: Tensor
    told: Tensor
    weight: Tensor | None
    tolerance: float
    least: float

    def hard(self, epsilon: float) -> Fit | None:
        """Where each label is one class, smoothed by ε."""
        if not 0 <= epsilon < 1:
            return None
        top = self.p.argmax(1)  # a class that is not the label's pulls down: where it is as good as 1, others are lost
        right = self.g.gather(1, top[:, None])[:, 0] <= 0
        found = self._with(torch.where(self.heard & ~right, self.g.argmin(1), top), epsilon)
        if epsilon:  # a smoothed label that is overshot pulls at all other entries more than at its own
            other = self._with(self.p.argmax(1), epsilon)
            better = other.off < found.off if self.p.shape[1] > 2 else self._nearer(found, other)
            found = _Tried(*(torch.where(better.view(-1, *[1] * (a.ndim - 1)), b, a)
                             for a, b in zip(found, other, strict=True)))  # fmt: skip
        told, length = self.told, self.g.square().sum(1)
        misfit = float(found.off[told].sum()) > self.tolerance**2 * float(length[told].sum())
        if misfit or not bool((found.factors[told] > 0).all()):
            return None
        shared = self.shared(found.factors / found.weights)
        by_class, several = (False, False) if shared is not None else self._by_class(found)
        if shared is None and self.p.shape[1] == 2 and not by_class:
            return None  # two entries fit any labels
        factors = found.factors.clamp_min(0.0) if shared is None else shared * found.weights
        factors, counted = (torch.where(self.heard, x, 0.0) for x in (factors, found.counts))
        return Fit(factors, shared, counted, found.labels, by_class and several)

    def _by_class(self, found: _Tried) -> tuple[bool, bool]:
        """Whether rows of one class have one factor, and whether there are two of any, to tell."""
        own, of = found.factors[self.told], found.labels.argmax(1)[self.told]
        none = own.new_full(self.p.shape[1:], torch.inf)
        low, high = none.scatter_reduce(0, of, own, "amin"), (-none).scatter_reduce(0, of, own, "amax")
        low, high = low[high >= low], high[high >= low]
        return bool((high - low <= 6 * self.tolerance * high).all()), len(high) < len(own)

    def _nearer(self, found: _Tried, other: _Tried) -> Tensor:
        """Rows of two classes fit with either: which of them has the factor that most rows have."""
        a, b = (t.factors / t.weights for t in (found, other))
        sure = self.told & (a == b)
        common = (a[sure] if bool(sure.any()) else torch.minimum(a, b)[self.told]).median()
        return (b - common).abs() < (a - common).abs()

    def _with(self, target: Tensor, epsilon: float) -> _Tried:
        """What rows say if these are their classes."""
        p, g, own = self.p, self.g, target[:, None]
        classes, tiny = p.shape[1], torch.finfo(p.dtype).tiny
        w = torch.ones(classes, dtype=p.dtype, device=p.device) if self.weight is None else self.weight.to(p)
        weights = ((1 - epsilon) * w[target] + epsilon / classes * w.sum()).clamp_min(tiny)
        labels = (epsilon / classes * w / weights[:, None]).scatter(1, own, 0.0)
        q, h = (p - labels).scatter(1, own, 0.0), g.scatter(1, own, 0.0)
        at_target = -g.gather(1, own)[:, 0] / q.sum(1)
        size = q.abs().amax(1, keepdim=True).clamp_min(tiny)
        factors = ((h / size) * (q / size)).sum(1) / (q / size).square().sum(1).clamp_min(tiny)
        # the target's entry is a difference of near numbers, unless the others are too small to be told
        factors = torch.where(h.abs().amax(1) > self.least, factors, at_target)
        labels = labels.scatter(1, own, 1 - labels.sum(1, keepdim=True))
        off = (g - factors[:, None] * (q.scatter(1, own, -q.sum(1, keepdim=True)))).abs()
        # the label's own entry is f (p - 1), of which p is rounded
        noise = 8 * torch.finfo(p.dtype).eps * factors.abs()[:, None]
        off = off.scatter(1, own, (off.gather(1, own) - noise).clamp_min(0.0)).square().sum(1)
        return _Tried(factors, labels, weights, w[target], off)

    def mixed(self) -> Fit | None:
        """Labels that mix a few classes: the entries of all others are f p, and none is more."""
        p, g = self.p, self.g
        if p.shape[1] < 3 or int(self.told.sum()) < 2:
            return None
        # none of a row's ratios is above f; where labels have all that is not lost to rounding, all are below
        exact = (g > self.least) & (p > torch.finfo(p.dtype).tiny)
        own = torch.where(exact, g / p, -torch.inf).amax(1)[self.told]
        near = own >= (1 - 3 * self.tolerance) * own.max()
        few = int(near.sum()) < max(2, 0.25 * len(own)) or not bool(own.max() > 0)
        balanced = float(g.sum(1).abs().sum()) <= self.tolerance * float(g.abs().sum())
        if few or not balanced:
            return None
        shared = float(own[near].double().mean())
        labels = p - g / shared
        if float(labels[self.told].min()) < -self.tolerance:
            return None
        counted = self.heard.to(p.dtype)
        return Fit(counted * shared, shared, counted, labels, loose=True)

    def shared(self, factors: Tensor) -> float | None:
        """What these have in common; None where they differ by more than rounding."""
        own = factors[self.told]
        middle = own.median()
        if not bool(((own - middle).abs() <= 3 * self.tolerance * middle.abs()).all()):
            return None
        return float(own.double().mean())


def _smoothing(p: Tensor, g: Tensor, told: Tensor) -> float:
    """ε of the labels, from the line g = f p − f ε/C through the entries that are not a row's class."""
    classes = p.shape[1]
    unsure = told & (p.amax(1) < 0.9)  # where the label cannot be overshot yet, if there are any
    told = unsure if bool(unsure.any()) else told
    p, g = p[told], g[told]
    off = torch.ones_like(p).scatter_(1, g.argmin(1, keepdim=True), 0.0)
    if classes == 2:  # one entry for each row: a line through all of them
        p, g, off = p.reshape(1, -1), g.reshape(1, -1), off.reshape(1, -1)
    n = off.sum(1).clamp_min(1)
    dp, dg = p - ((p * off).sum(1) / n)[:, None], g - ((g * off).sum(1) / n)[:, None]
    slope = (dp * dg * off).sum(1) / (dp.square() * off).sum(1)
    at_zero = ((p - g / slope[:, None]) * off).sum(1) / n
    told = at_zero[slope.isfinite() & at_zero.isfinite() & (slope > 0)]
    return float(told.median()) * classes if len(told) else 0.0
