"""Which regions run their forward pass a second time, so that what it keeps fits a memory for activations.

What autograd keeps inside a region is freed at once and made again for its weight update, from the region's
inputs; dearest in bytes per FLOP first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from reclra_compile.ir import Region, Target


def recomputed(
    regions: Sequence[Region], targets: Sequence[Target], chosen: Collection[str], budget: int
) -> tuple[Target, ...]:
    """`targets` with `recompute` set for the regions in `chosen`, and for more until at most `budget` bytes are kept.

    A budget of 0 is none.
    """
    by_name = {r.name: r for r in regions}
    again = set(chosen)
    if budget:
        learning = [by_name[t.region] for t in targets if t.trainable]
        kept = sum(r.saved_bytes for r in learning if r.name not in again)
        for r in sorted(learning, key=lambda r: (-r.saved_bytes / max(1, r.forward_flops), r.name)):
            if kept <= budget:
                break
            if r.name not in again and r.saved_bytes:
                again.add(r.name)
                kept -= r.saved_bytes
    return tuple(replace(t, recompute=t.trainable and t.region in again) for t in targets)


def kept_bytes(regions: Sequence[Region], targets: Sequence[Target]) -> int:
    """Bytes that autograd keeps inside the regions between forward pass and weight update."""
    again = {t.region for t in targets if t.recompute or not t.trainable}
    learning = {t.region for t in targets}
    return sum(r.saved_bytes for r in regions if r.name in learning and r.name not in again)
