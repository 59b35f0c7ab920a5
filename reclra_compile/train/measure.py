"""What a run reports of a part of its data: the error where targets are classes, the loss where they are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.runtime.loss import LossFunction, reduction_of
from reclra_compile.runtime.peers import Alone, Peers
from reclra_compile.train.feed import Input, chunks

Measure = Literal["error", "loss"]
Split = tuple[tuple[Input, ...], Tensor]
#: the output that the loss sees, from the model's inputs in the order of its arguments; None on ranks without it
Forward = Callable[[tuple[Tensor, ...]], Tensor | None]

BATCH = 1000
ALONE = Alone()


def classes_axis(output: Tensor, y: Tensor, loss_fn: LossFunction) -> int | None:
    """The axis of `output` that has one value per class; None where `y` is not class indices."""
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or output.ndim != y.ndim + 1:
        return None
    # torch's cross entropy has classes second; a loss of the user's own has mostly flattened (…, classes)
    plain = loss_fn is F.cross_entropy or isinstance(loss_fn, nn.CrossEntropyLoss)
    for axis in (1, -1) if plain else (-1, 1):
        rest = list(output.shape)
        if rest.pop(axis) > 1 and rest == list(y.shape):
            return axis
    return None


def error_percent(model: nn.Module, forward: Forward, split: Split, loss_fn: LossFunction) -> float:
    """Share of wrongly classified samples (or tokens, or pixels) in percent, in eval mode.

    Negative labels stand for nothing to classify (padding) and do not count.
    """
    return errors_percent(model, forward, split, loss_fn, (1,))[0]


def errors_percent(
    model: nn.Module, forward: Forward, split: Split, loss_fn: LossFunction, tops: tuple[int, ...],
    peers: Peers = ALONE,
) -> tuple[float, ...]:  # fmt: skip
    """As `error_percent`, for each k of `tops`: the label is not among the k classes with the largest outputs.

    Collective: the counts of all `peers`.
    """
    wrong, count = [0] * len(tops), 0
    for output, y in _evaluated(model, forward, split):
        axis = classes_axis(output, y, loss_fn)
        assert axis is not None  # the trial before training has found one
        there = y >= 0
        for place, k in enumerate(tops):
            if k == 1:
                hit = output.argmax(axis) == y
            else:
                best = output.topk(min(k, output.shape[axis]), axis).indices
                hit = (best == y.unsqueeze(axis)).any(axis)
            wrong[place] += int((~hit & there).sum())
        count += int(there.sum())
    *missed, counted = peers.total([*wrong, count])
    return tuple(100.0 * w / max(counted, 1) for w in missed)


def mean_loss(
    model: nn.Module, forward: Forward, split: Split, loss_fn: LossFunction, peers: Peers = ALONE
) -> float:
    """The loss per sample, in eval mode: of a loss that sums over its batch, the sum divided by the samples.

    Collective: what all `peers` know of it.
    """
    total, summed = 0.0, None
    for output, y in _evaluated(model, forward, split):
        if summed is None:
            summed = reduction_of(loss_fn, output, y) == "sum"
        total += float(loss_fn(output, y)) * (1 if summed else len(y))
    return peers.total([total])[0] / len(split[1])


def _evaluated(model: nn.Module, forward: Forward, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Output and target of each batch that this process has the output of; the model's mode is restored afterwards."""
    inputs, y = split
    mode = {m: m.training for m in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            for rows, batch in chunks(inputs, len(y), BATCH):
                output = forward(batch)
                if output is not None:
                    yield output, y[rows]
    finally:
        for module, training in mode.items():
            module.training = training
