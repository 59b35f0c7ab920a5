"""The order of interleaved 1F1B: each device has several parts of the model and changes between them in rounds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reclra_compile.simulate.pattern import Ints


class Passes(NamedTuple):
    """What a device does in order: 1 for a backward pass, else 0; the stage; the microbatch."""

    backward: Ints
    stage: Ints
    microbatch: Ints


def interleaved_lanes(parts: int, devices: int, microbatches: int) -> tuple[Passes, ...] | None:
    """What each device does, `parts` stages on each; None where the microbatches cannot be cut into rounds.

    A round is as many microbatches as there are devices, or all where there are fewer; each part takes a round in turn.
    A device runs 2 (p − 1 − d) + (v − 1)·round forward passes, then one forward and one backward pass alternately.
    """
    rounds = max(1, microbatches // devices)
    if parts < 1 or microbatches % rounds:
        return None
    size, total = microbatches // rounds, microbatches * parts
    step = np.arange(total)
    part, microbatch = step // size % parts, step // (size * parts) * size + step % size
    lanes = []
    for d in range(devices):
        ahead = min(total, 2 * (devices - 1 - d) + (parts - 1) * size)
        # forward pass k at place k, and behind the first ones at every other place; backward passes fill the rest
        at = np.where(step < ahead, step, 2 * step - ahead)
        back = np.where(step < total - ahead, 2 * step + ahead + 1, step + total)
        lane = np.empty((3, 2 * total), np.int64)
        lane[:, at] = np.stack((np.zeros_like(step), part * devices + d, microbatch))
        lane[:, back] = np.stack((np.ones_like(step), (parts - 1 - part) * devices + d, microbatch))
        lanes.append(Passes(*lane))
    return tuple(lanes)
