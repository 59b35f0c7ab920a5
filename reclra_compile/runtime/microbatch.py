"""Cut a batch into microbatches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from reclra_compile.errors import Fault, TrainingError


def fewest_samples(modules: Iterable[nn.Module]) -> int:
    """The samples that a microbatch needs: 2 where a vector is normalised over the batch, as one has no variance."""
    return 1 + any(isinstance(m, nn.BatchNorm1d) for top in modules for m in top.modules())


def microbatches(batch: Sequence[Any], count: int, fewest: int = 1) -> list[tuple[int, tuple[Any, ...]]]:
    """`count` parts of a batch (tensors, or nested containers of them), in order, each with its number of samples.

    Parts differ by one sample at most; a small batch has fewer parts, of at least `fewest` samples. What is no tensor
    with a batch dimension goes to every part. Raises TrainingError (T028) where tensors have different numbers of
    samples, or none.
    """
    leaves, spec = tree_flatten(tuple(batch))
    cut = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.ndim]
    sizes = {len(leaves[k]) for k in cut}
    if len(sizes) != 1 or 0 in sizes:
        shown = " and ".join(map(str, sorted(sizes))) or "no"
        raise TrainingError(Fault("T028", f"a batch cannot be cut: its tensors have {shown} samples",
                                  fix="give inputs and targets with the batch as their first dimension"))  # fmt: skip
    count = max(1, min(count, *(size // fewest for size in sizes)))
    pieces = {k: torch.tensor_split(leaves[k], count) for k in cut}
    first = pieces[cut[0]]
    return [
        (len(first[m]), tree_unflatten([pieces[k][m] if k in pieces else leaf for k, leaf in enumerate(leaves)], spec))
        for m in range(count)
    ]
