"""From the loop's gradient at an output: the factor f, and the loss that read-outs learn in place of labels.

The loop hands over no labels. They are in the gradient all the same: e_L = softmax(z) − y for cross entropy,
2 (z − y) / C for a mean squared error, σ(z) − y for binary cross entropy. What is made of them here is a function of an
output, in units of the loop's loss, whose gradient at z is the loop's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reclra_compile.integrate.crossentropy import CrossEntropy, flat
from reclra_compile.integrate.factor import TOLERANCE, Fit, fit
from reclra_compile.integrate.losses import Loss
from reclra_compile.integrate.plain import likelihood, plain
from reclra_compile.runtime.loss import LossFunction, loss_and_gradient

OutputLoss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """`factor` f of c = f e; `amplified`: what the loop multiplied the loss with; `doubt`: why f may be wrong; `told`:
    f is from the gradient itself.
    """

    factor: float
    amplified: float
    loss: OutputLoss
    doubt: str = ""
    told: bool = False


def read(z: Tensor, g: Tensor, loss: Loss, scale: float | None, wants_labels: bool) -> Reading:
    """What gradient `g` at output `z` (N, …) says; `scale` is what the loop multiplied the loss with, if it is said."""
    least = torch.finfo(g.dtype).tiny  # of less, the most is lost to rounding
    if not g.numel() or bool(torch.maximum(g.max(), -g.min()) < least):
        times = 1.0 if scale is None else scale
        return Reading(times if loss.reduction == "sum" else times / max(1, len(z)), times, lambda r: (r * 0.0).sum())
    if loss.kind == "cross_entropy" and likelihood(z, g):  # of a model that ends in a log-softmax
        loss = replace(loss, kind="nll")
    found = _read(z, g, loss, scale, wants_labels)
    overflown = bool(found.doubt) and not bool(g.isfinite().all())  # a gradient scaler will skip this step
    return replace(found, doubt="") if overflown else found


def _read(z: Tensor, g: Tensor, loss: Loss, scale: float | None, wants_labels: bool) -> Reading:
    natural = 1.0 if loss.reduction == "sum" else 1.0 / len(z)
    by_hand = natural * (1.0 if scale is None else scale)
    if loss.kind in ("cross_entropy", ""):
        found = _rows(z, g, loss, scale, natural, wants_labels)
        if found is not None:
            return found
    if not bool(g.isfinite().all()):  # nothing to learn from: a gradient scaler leaves such a step out
        return Reading(by_hand, by_hand / natural, _squares(z, g, by_hand))
    kind, told = loss.kind, None
    if scale is None and kind in ("", *_TOLD):
        told = _TOLD[kind or "bce_logits"](z, g, loss)
        kind = kind if told is None else kind or "bce_logits"
    if kind not in _ELEMENTS:
        doubt = "the gradient at the output is not that of a cross entropy of it" if kind and scale is None else ""
        if not kind and wants_labels and z.ndim > 1:  # what they learn instead is right to first order only
            doubt = "labels of read-outs do not follow from the gradient of this loss: hand them over by labels(y)"
        return Reading(by_hand, by_hand / natural, _squares(z, g, by_hand), doubt)
    k = by_hand if loss.reduction == "sum" else by_hand * len(z) / z.numel()
    if told is not None:
        summed = loss.reduction == "sum" or (loss.reduction is None and abs(told - 1) < TOLERANCE.get(g.dtype, 1e-3))
        natural = 1.0 if summed else natural
        times = told if summed else told * z.numel()
        by_hand = _rounded(times, g.dtype) * natural
        k = told * by_hand / (times * natural)
    doubt = "" if told is not None or scale is not None else _doubt(kind, z, g, k)
    return Reading(by_hand, by_hand / natural, _ELEMENTS[kind](z, g, loss, k), doubt, told is not None)


def by_labels(z: Tensor, g: Tensor, loss_fn: LossFunction, y: Any, natural: float) -> Reading:
    """As `read` where the loop has handed the labels over: exact for any loss."""
    _, own = loss_and_gradient(loss_fn, z, y)
    a, b = own.double(), torch.where(g.isfinite(), g, 0.0).double()
    length = float((a * a).sum())
    times = float((a * b).sum()) / length if length else 1.0
    misfit = float((b - times * a).norm()) > 10 * TOLERANCE.get(g.dtype, 1e-3) * float(b.norm())
    doubt = "the gradient at the output is not that of loss_fn with the labels handed over" if misfit else ""
    return Reading(times * natural, times, lambda r: loss_fn(r, y) * times, doubt)


# Cross entropy, row by row


def _rows(
    z: Tensor, g: Tensor, loss: Loss, scale: float | None, natural: float, wants_labels: bool
) -> Reading | None:
    if z.ndim < 2:
        return None
    axes = _axes(z, g)
    for axis in axes:
        logits, rows = flat(z, axis), flat(g, axis)
        found = plain(logits, rows, loss.known, wants_labels) or fit(logits, rows, loss.known, wants_labels)
        if found is not None:
            f, doubt = (natural * scale, "") if scale is not None else _factor(found, loss, natural, g.dtype, len(z))
            if scale is None and found.shared is not None:
                found = replace(found, factors=found.factors * (f / _total(found, loss, len(z))))
            made = CrossEntropy(found, axis) if wants_labels else _squares(z, g, f)
            return Reading(f, f / natural, made, doubt, told=True)
    return _soft(z, g, loss, axes[0], natural, scale)


def _soft(z: Tensor, g: Tensor, loss: Loss, axis: int, natural: float, scale: float | None) -> Reading | None:
    """Rows whose labels are spread over all classes, as a teacher's are: f is what it is by hand."""
    times = 1.0 if scale is None else scale
    p, rows = torch.softmax(_high(flat(z, axis)), 1), _high(flat(g, axis))
    k = times if loss.reduction == "sum" else times / len(rows)
    labels, tolerance = p - rows / k, TOLERANCE.get(g.dtype, 1e-3)
    balanced = float(rows.sum(1).abs().sum()) <= tolerance * float(rows.abs().sum())
    if not balanced or float(labels.min()) < -tolerance:
        return None
    factors = rows.new_full((len(rows),), k)
    return Reading(natural * times, times, CrossEntropy(Fit(factors, k, torch.ones_like(factors), labels), axis))


def _total(found: Fit, loss: Loss, samples: int) -> float:
    """f of e = g/f per sample: 1/N of a mean, 1 of a sum, times what the loop multiplied it with."""
    if loss.reduction == "sum" and found.shared is not None:
        return found.shared
    return found.total / samples


def _factor(found: Fit, loss: Loss, natural: float, dtype: torch.dtype, samples: int) -> tuple[float, str]:
    """f, and why it may be wrong: rows that differ show only what they count times what all were multiplied with."""
    times = _total(found, loss, samples) / natural
    likely = _rounded(times, dtype)
    if found.loose and likely == times:
        power = 2.0 ** round(math.log2(times))
        likely = power if abs(times - power) < 2 * TOLERANCE.get(dtype, 1e-3) * power else times
    if found.shared is not None or found.by_class or likely != times:
        return likely * natural, ""
    if not 16 < times < math.inf:  # a focal loss, or weights of samples: errors are per sample, as the loss has them
        return natural, ""
    doubt = f"each row of the gradient has a factor of its own, and together they are {times:.3g}"
    return 2.0 ** round(math.log2(times)) * natural, doubt


def _rounded(times: float, dtype: torch.dtype) -> float:
    """The likely one of the numbers that `times` cannot be told from in this precision.

    That is a power of 2, as of a gradient scaler, or one divided by a small count, as of accumulation. Autocast rounds
    the gradient, and with it what is fitted to it; a step that is told its labels has the exact one.
    """
    if not math.isfinite(times) or times <= 0:
        return times
    for count in range(1, 17, 2):
        power = round(math.log2(times * count))
        if abs(times * count - 2.0**power) <= torch.finfo(dtype).eps * 2.0**power:
            return 2.0**power / count
    return times


def _axes(z: Tensor, g: Tensor) -> list[int]:
    """The axes that classes may be along, the likely one first: a row of the gradient sums to 0."""
    if z.ndim == 2:
        return [1]
    return sorted((1, z.ndim - 1), key=lambda axis: float(g.nan_to_num().sum(axis, dtype=torch.float32).abs().sum()))


# Losses of single elements: k is the factor of one element


def _squares(z: Tensor, g: Tensor, f: float) -> OutputLoss:
    """½ f ‖r − (z − e)‖²: whatever the loss, its gradient at z is g, and z − e is the activity that it asks for."""
    return lambda r: 0.5 * f * (r - (_high(z) - _high(g) / f).to(r.dtype)).square().sum()


def _mse(z: Tensor, g: Tensor, loss: Loss, k: float) -> OutputLoss:
    return _squares(z, g, 2 * k)


def _bce_logits(z: Tensor, g: Tensor, loss: Loss, k: float) -> OutputLoss:
    z, g = _high(z), _high(g)
    w, more, s = _one(loss.weight, z), _one(loss.positive, z), torch.sigmoid(z)
    y = (s - g / (k * w)) / (s + more * (1 - s))  # g = k w ((1 − y) σ − more · y (1 − σ))

    def run(r: Tensor) -> Tensor:
        off, on = torch.nn.functional.softplus(r), torch.nn.functional.softplus(-r)
        return (k * w * ((1 - y) * off + more * y * on).to(r.dtype)).sum()

    return run


def _bce(z: Tensor, g: Tensor, loss: Loss, k: float) -> OutputLoss:
    z, g, w = _high(z), _high(g), _one(loss.weight, _high(z))
    y = z - g * z * (1 - z) / (k * w)

    def run(r: Tensor) -> Tensor:
        return -(k * w * (y * r.log().clamp_min(-100) + (1 - y) * (1 - r).log().clamp_min(-100)).to(r.dtype)).sum()

    return run


def _nll(z: Tensor, g: Tensor, loss: Loss, k: float) -> OutputLoss:
    """The loss is linear in the log-probabilities: its gradient is all there is to know."""
    return lambda r: (g.to(r.dtype) * r).sum()


_ELEMENTS: dict[str, Callable[[Tensor, Tensor, Loss, float], OutputLoss]] = {
    "mse": _mse,
    "bce_logits": _bce_logits,
    "bce": _bce,
    "nll": _nll,
}


def _high(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def _one(weight: Tensor | None, like: Tensor) -> Tensor:
    return torch.ones((), dtype=like.dtype, device=like.device) if weight is None else weight.to(like)


# k from the gradient, where labels are 0 or 1


def _common(ratios: Tensor, g: Tensor) -> float | None:
    """What all ratios have in common; None where they differ by more than rounding."""
    big = g.abs() > 1e-3 * g.abs().max()
    own = ratios[big & ratios.isfinite()]
    if len(own) < 3:  # as many as it takes to tell
        return None
    middle = own.median()
    near = ((own - middle).abs() <= 3 * TOLERANCE.get(g.dtype, 1e-3) * middle.abs()).all()
    return float(own.double().mean()) if bool(near) and float(middle) > 0 else None


def _told_logits(z: Tensor, g: Tensor, loss: Loss) -> float | None:
    w, more, h = (_one(t, _high(z)) for t in (loss.weight, loss.positive, None))
    h, z = h * _high(g), _high(z)
    return _common(torch.where(g > 0, h / (w * torch.sigmoid(z)), -h / (w * more * torch.sigmoid(-z))), g)


def _told_probabilities(z: Tensor, g: Tensor, loss: Loss) -> float | None:
    w, h, z = _one(loss.weight, _high(z)), _high(g), _high(z)
    return _common(torch.where(g > 0, h * (1 - z) / w, -h * z / w), g)


def _told_nll(z: Tensor, g: Tensor, loss: Loss) -> float | None:
    """The mean over elements that has the rows' mean: Σ f_i ÷ (samples · elements of one)."""
    if loss.reduction != "sum":
        return -float(g.nan_to_num().double().sum()) / z.numel()
    axis = 1 if z.ndim > 1 else 0
    w = _one(loss.weight, z).view(-1, *[1] * (z.ndim - 2)) if loss.weight is not None else _one(None, z)
    return _common((-g / w).sum(axis), g.sum(axis))


_TOLD: dict[str, Callable[[Tensor, Tensor, Loss], float | None]] = {
    "bce_logits": _told_logits,
    "bce": _told_probabilities,
    "nll": _told_nll,
}


def _doubt(kind: str, z: Tensor, g: Tensor, k: float) -> str:
    """Why labels that follow from k cannot be right."""
    e = g.nan_to_num() / k
    if kind == "bce_logits":
        y = torch.sigmoid(z) - e
        low, high = float(y.min()), float(y.max())
        if low < -0.01 or high > 1.01:
            return f"the labels that follow from the gradient reach from {low:.3g} to {high:.3g}, not from 0 to 1"
    size, usual = float(e.float().square().mean().sqrt()), float(z.float().square().mean().sqrt())
    if math.isfinite(size) and size > 1e3 * (1 + usual):
        return f"the errors e_L that follow from the gradient are {size:.3g} large, where the output is {usual:.3g}"
    return ""
