"""Numbers from samples: a task's time as a line over samples, and a machine's rates from many tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reclra_compile.ir import Device

_POINTS = 13  #: per rate and pass of the search
_PASSES = 10  #: each looks at half of the range before, around the best point
_DECADES = 2.0  #: up and down from the first guess
_TOWARDS_GUESS = 1e-4  #: weight of staying near the guess, which decides where the samples do not


@dataclass(frozen=True, slots=True)
class Line:
    """A time in µs that grows with samples: `fixed_us` + `sample_us` · samples, neither below 0."""

    fixed_us: float
    sample_us: float

    def us(self, samples: float) -> float:
        """The time for so many samples."""
        return self.fixed_us + self.sample_us * samples


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured task: its FLOPs, the bytes it moves, and how long it took."""

    flops: float
    bytes: float
    us: float


def line_through(times_us: Mapping[int, float], fixed_us: float = 0.0) -> Line:
    """The line through the time of the most samples that has the least squared relative error at the others.

    With one number of samples, `fixed_us` is taken as the part that does not grow, if the time is that long.
    """
    points = sorted((n, t) for n, t in times_us.items() if t > 0)
    if not points:
        return Line(0.0, 0.0)
    most, longest = points.pop()
    if not points:
        fixed = min(longest, fixed_us)
        return Line(fixed, (longest - fixed) / most)
    # minimise Σ ((T + b (n − N)) / t − 1)² over b
    up = sum((most - n) * (longest - t) / t**2 for n, t in points)
    slope = up / sum(((most - n) / t) ** 2 for n, t in points)
    slope = min(max(slope, 0.0), longest / most)
    return Line(longest - slope * most, slope)


def fitted(samples: Sequence[Sample], guess: Device) -> Device:
    """`guess` with the arithmetic rate, the bandwidth and the time to start a task that explain the samples best.

    A task takes max(FLOPs ÷ rate, bytes ÷ bandwidth) + start. Errors are those of the logarithm, weighted by the square
    root of the time; in the end all is scaled so that the sum of the samples is met. Where samples say nothing of a
    number, it stays near that of `guess`.
    """
    used = [s for s in samples if s.us > 0]
    if not used:
        return guess
    flops, moved, us = (np.array([getattr(s, k) for s in used], dtype=np.float64) for k in ("flops", "bytes", "us"))
    start = np.log([guess.flops_per_s or 1e11, guess.bytes_per_s or 1e10, guess.task_us or 10.0])
    best, width = start, _DECADES * math.log(10)
    for _ in range(_PASSES):
        best = _best_of(best, width, start, flops, moved, us)
        width /= 2
    rate, bandwidth, task_us = (float(x) for x in np.exp(best))
    scale = float(us.sum() / _predicted(np.exp(best)[None, :], flops, moved).sum())
    return replace(guess, flops_per_s=rate / scale, bytes_per_s=bandwidth / scale, task_us=task_us * scale)


Array = NDArray[np.float64]


def _best_of(around: Array, width: float, guess: Array, flops: Array, moved: Array, us: Array) -> Array:
    """The point with the smallest error of a cube of points, (3,) logarithms."""
    steps = np.linspace(-width, width, _POINTS)
    cube = np.stack(np.meshgrid(*(around[k] + steps for k in range(3)), indexing="ij"), axis=-1).reshape(-1, 3)
    share = np.sqrt(us) / np.sqrt(us).sum()
    error = np.empty(len(cube))
    block = max(1, 4_000_000 // len(us))
    for k in range(0, len(cube), block):
        some = cube[k : k + block]
        off = np.log(_predicted(np.exp(some), flops, moved) / us)
        error[k : k + block] = (share * off**2).sum(axis=1) + _TOWARDS_GUESS * ((some - guess) ** 2).sum(axis=1)
    found: Array = cube[int(error.argmin())]
    return found


def _predicted(numbers: Array, flops: Array, moved: Array) -> Array:
    """Microseconds of each task, (points, tasks), for points of (rate, bandwidth, start)."""
    rate, bandwidth, task_us = (numbers[:, k : k + 1] for k in range(3))
    times: Array = np.maximum(flops / rate, moved / bandwidth) * 1e6 + task_us
    return times
