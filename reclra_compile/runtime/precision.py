"""Mixed precision and memory formats: the forward pass as the user set it, errors and updates exactly.

Under autocast the forward pass and the loss run in low precision, as they would in a training loop of
the user's; gradients are taken outside of it, as torch asks for, and error neurons are kept in float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def outside_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """A context in which autocast is off; nothing at all where it is off already."""
    if not torch.is_autocast_enabled(device_type):
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)


def laid_out_as(d: Tensor, h: Tensor) -> Tensor:
    """`d` in the memory format of `h`: a convolution's gradients are then computed without converting."""
    if d.ndim < 4 or h.is_contiguous():
        return d
    form = torch.channels_last if d.ndim == 4 else torch.channels_last_3d
    return d.contiguous(memory_format=form) if h.is_contiguous(memory_format=form) else d


def as_autocast(x: Tensor, *weights: Tensor | None) -> tuple[Tensor | None, ...]:
    """`x` and weights in autocast's precision where it is on, as it would convert them for an operation of torch."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return (x, *weights)
    low = torch.get_autocast_dtype(device)
    return tuple(t if t is None else t.to(low) for t in (x, *weights))


def autocast_of(values: Sequence[Any]) -> tuple[str, torch.dtype] | None:
    """Device type and precision of autocast where it is on for these inputs."""
    device = next((v.device.type for v in values if isinstance(v, Tensor)), "cpu")
    return (device, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
