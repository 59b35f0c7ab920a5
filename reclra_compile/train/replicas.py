"""Batches that replicas share: each replica needs a part of every batch."""

from __future__ import annotations

from reclra_compile.errors import Fault, TrainingError


def check_batches(count: int, size: int, replicas: int, fewest: int = 1) -> None:
    """Raise TrainingError (T030) where `count` samples in batches of `size` leave a batch too small for all replicas.

    A replica needs `fewest` samples of each batch.
    """
    needed = replicas * fewest
    if replicas == 1 or _smallest(count, size) >= needed:
        return
    nearest = next((n for away in range(max(count, size)) for n in (size - away, size + away)
                    if needed <= n <= count and _smallest(count, n) >= needed), 0)  # fmt: skip
    fix = f"use --batch-size {nearest}, or fewer replicas" if nearest else "use fewer replicas, or more data"
    each = f", which need {fewest} each" if fewest > 1 else ""
    raise TrainingError(
        Fault("T030", f"{count:,} samples in batches of {size:,} leave a batch of {_smallest(count, size):,} for "
              f"{replicas} replicas{each}", fix=fix)
    )  # fmt: skip


def _smallest(count: int, size: int) -> int:
    """The samples of an epoch's smallest batch."""
    return min(size, count % size or size)
