"""The batches of a part: cut from tensors, or decoded from files while the batch before is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from reclra_compile.data.stream import Images

#: one input of all samples of a part
Input = Tensor | Images
Index = Tensor | slice


def feed(
    inputs: tuple[Input, ...], order: Iterable[Index], generator: torch.Generator | None = None, unseen: int = 0
) -> Iterator[tuple[Index, tuple[Tensor, ...]]]:
    """Index and inputs of each batch in turn; with a generator, images are treated as in training.

    The images of the next batch are decoded meanwhile. The first `unseen` batches are left out; what is random about
    them is drawn nevertheless. Raises DataError (D008) where an image cannot be decoded.
    """
    ahead: tuple[Index, list[Callable[[], Tensor]]] | None = None
    for k, index in enumerate(order):
        if k < unseen:
            for x in inputs:
                if isinstance(x, Images):
                    x.decoder.draw(len(x.chosen(index)), generator)
            continue
        started = [_start(x, index, generator) for x in inputs]
        if ahead is not None:
            yield _finished(*ahead)
        ahead = index, started
    if ahead is not None:
        yield _finished(*ahead)


def _start(x: Input, index: Index, generator: torch.Generator | None) -> Callable[[], Tensor]:
    if isinstance(x, Images):
        return x.start(index, generator)
    return partial(x.__getitem__, index)  # cut when it is needed: two batches need not be kept


def _finished(index: Index, started: list[Callable[[], Tensor]]) -> tuple[Index, tuple[Tensor, ...]]:
    return index, tuple(finish() for finish in started)


def chunks(inputs: tuple[Input, ...], count: int, size: int) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    """Samples 0 to `count` - 1 in order, for evaluation, by `size` or fewer at once."""
    size = min([size, *(x.batch for x in inputs if isinstance(x, Images))])
    order = [slice(k, min(k + size, count)) for k in range(0, count, size)]
    return zip(order, (batch for _, batch in feed(inputs, order)), strict=True)
