"""Bytes between two ranks: what is posted, and what is expected, in one order for each direction."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

SMALL = 64 * 1024  #: bytes up to which tensors of one packet travel as one


class Sending(Protocol):
    """Something under way: a tensor that leaves or arrives."""

    def wait(self) -> None:
        """Return when it is done; raises WireError."""


class Wire(Protocol):
    """One direction between this rank and another: tensors arrive in the order in which they are sent.

    What is not a value of the model, such as a layout, is sent from and to the device `home`.
    """

    home: torch.device

    def send(self, tensor: Tensor) -> Sending:
        """Start to send a contiguous tensor, which must not change before it is done."""
        ...

    def receive(self, into: Tensor) -> Sending:
        """Start to receive into a contiguous tensor."""
        ...


class WireError(Exception):
    """The other rank did not answer in time (`late`), or is gone."""

    def __init__(self, late: bool, reason: str) -> None:
        super().__init__(reason)
        self.late = late


class ProcessWire:
    """A wire over torch.distributed: `peer` is the other rank, `home` the device whose memory the transport reads.

    Tensors of another device pass through it.
    """

    def __init__(self, peer: int, group: Any, timeout: float, home: torch.device) -> None:
        self._peer, self._group, self._timeout, self.home = peer, group, timeout, home

    def send(self, tensor: Tensor) -> Sending:
        """Start to send; the tensor is kept until it is done."""
        tensor = tensor.to(self.home)
        return _Work(self._started(dist.isend, tensor), tensor, self._timeout)

    def receive(self, into: Tensor) -> Sending:
        """Start to receive."""
        if into.device == self.home:
            return _Work(self._started(dist.irecv, into), into, self._timeout)
        landing = torch.empty(into.shape, dtype=into.dtype, device=self.home)
        return _Work(self._started(dist.irecv, landing), landing, self._timeout, lambda: into.copy_(landing))

    def _started(self, start: Callable[..., Any], tensor: Tensor) -> Any:
        try:
            return start(tensor, self._peer, group=self._group)
        except RuntimeError as error:
            raise WireError(False, reason(error)) from error


class _Work:
    """A piece of work of torch.distributed with the tensor that it needs."""

    def __init__(self, work: Any, tensor: Tensor, timeout: float, after: Callable[[], object] | None = None) -> None:
        self._work, self._tensor, self._timeout, self._after = work, tensor, timeout, after

    def wait(self) -> None:
        """Wait as long as the wire's timeout."""
        started = time.monotonic()
        try:
            if self._tensor.is_cuda:  # orders the streams and goes on; a timeout would make the host wait here
                self._work.wait()
            else:
                self._work.wait(timedelta(seconds=self._timeout))
        except RuntimeError as error:
            late = time.monotonic() - started >= 0.9 * self._timeout
            raise WireError(late, reason(error)) from error
        if self._after is not None:
            self._after()


def reason(error: Exception) -> str:
    """The first sentence of a transport's message, without its source file."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^]]*\] ?", "", line).split(". ")[0] or line


def fused(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of a packet as they travel: small ones as the bytes of one, at its end."""
    small, large = _split(tensors)
    if len(small) < 2:
        return list(tensors)
    return [*large, torch.cat([t.flatten().view(torch.uint8) for t in small])]


def rooms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What tensors that `fused` has made are received into, to be spread over `tensors`."""
    small, large = _split(tensors)
    if len(small) < 2:
        return list(tensors)
    size = sum(t.numel() * t.element_size() for t in small)
    return [*large, torch.empty(size, dtype=torch.uint8, device=small[0].device)]


def spread(rooms: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy what has arrived in `rooms` to the small ones of `tensors`."""
    small, _ = _split(tensors)
    if len(small) < 2:
        return
    at = 0
    for t in small:
        size = t.numel() * t.element_size()
        t.copy_(rooms[-1][at : at + size].clone().view(t.dtype).view(t.shape))
        at += size


def _split(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The small tensors that hold anything, and the rest; what is empty does not travel at all."""
    sized = [(t, t.numel() * t.element_size()) for t in tensors]
    return [t for t, n in sized if 0 < n <= SMALL], [t for t, n in sized if n > SMALL]
