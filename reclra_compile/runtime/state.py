"""What tasks share while a program runs: slots for values, and the facts of the current step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Slots = list[Any]


class Errors(NamedTuple):
    """Error neurons of a region: `e` per sample (None where nobody reads it), `c` = e × loss scale.

    The loss scale is 1/N where the loss is a mean over N samples and 1 where it is a sum, so that a
    VJP with cotangent c is a gradient of the loss.
    """

    e: Tensor | None
    c: Tensor


@dataclass(slots=True)
class StepState:
    """The current step, or one microbatch of it: loss scale, samples, terms of D(Θ), one-hot labels once made, and the
    weight updates that wait for the end of the step, as (root, cotangent, parameters). `autocast` is the forward pass's
    device type and precision, where autocast is on; `seed` the random numbers of states that settle.

    Microbatch `number` has `samples` of the `whole` batch's (0: it is all there is), and weighs `part` of a mean over
    it. A gradient of the microbatch's own loss times `share` is one of the batch's loss: 1 for a sum. `seen`: output
    and gradient at the loss, while it is not known whether the loss can be cut. `lane` counts the microbatches of this
    process, `number` those of all, of which there are `parts`. `given`: the scale comes from outside, with a gradient
    that is `amplified` (by a gradient scaler, say) times that of the loss. `leaves`: inputs that want a gradient.
    """

    scale: float = 1.0
    share: float = 1.0
    batch: int = 1
    number: int = 0
    part: float = 1.0
    samples: int = 0
    whole: int = 0
    discrepancy: dict[str, Tensor] = field(default_factory=dict)
    one_hot: Tensor | None = None
    pending: list[tuple[Tensor, Tensor, tuple[nn.Parameter, ...]]] = field(default_factory=list)
    autocast: tuple[str, torch.dtype] | None = None
    seed: int = 0
    seen: tuple[Tensor, Tensor] | None = None
    parts: int = 1
    lane: int = 0
    given: bool = False
    amplified: float = 1.0
    leaves: tuple[Tensor, ...] = ()

    def scaled(self, reduction: str, rows: int) -> None:
        """Set scale and share for a loss over `rows` of this microbatch, where they are not given."""
        if self.given:
            return
        self.batch = rows
        self.share = self.part if reduction == "mean" else 1.0
        self.scale = self.fraction / rows if reduction == "mean" else 1.0

    @property
    def fraction(self) -> float:
        """The part of the batch's samples."""
        return self.samples / self.whole if self.whole else 1.0

    def as_forward(self) -> contextlib.AbstractContextManager[object]:
        """A context with the precision of the forward pass, for regions that run again in the error phase."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.autocast[0], self.autocast[1])

    def finish(self) -> None:
        """Run the waiting weight updates in one call of autograd, whose overhead they share."""
        ready = [(r, c, ps) for r, c, ps in self.pending if r.requires_grad]
        if ready:
            into: dict[Tensor, None] = dict.fromkeys(p for _, _, ps in ready for p in ps if p.requires_grad)
            into |= dict.fromkeys(self.leaves)
            torch.autograd.backward([r for r, _, _ in ready], [c for _, c, _ in ready], inputs=list(into))


@contextlib.contextmanager
def buffers_aside(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, modules work on copies of their buffers, such as batch statistics, which are then forgotten.

    The buffers themselves are not written: graphs that hold them stay valid.
    """
    found = {(id(m), k): (m._buffers, k) for module in modules for m in module.modules() for k in m._buffers}
    kept = [(owner, k, owner[k]) for owner, k in found.values()]
    for owner, k, buffer in kept:
        owner[k] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for owner, k, buffer in kept:
            owner[k] = buffer


class SlotMap:
    """Numbers for value names; slot 0 holds the StepState.

    While a task of some `device` is built, a value that was sent there is its copy; None takes names as they are.
    """

    def __init__(self, copies: frozenset[str] = frozenset()) -> None:
        self._index: dict[str, int] = {}
        self.copies = copies
        self.device: int | None = None

    def __call__(self, name: str) -> int:
        return self.on(self.device, name)

    def on(self, device: int | None, name: str) -> int:
        """The slot of the value `name` as a task on `device` sees it."""
        copy = f"{name}|{device}"
        return self._index.setdefault(copy if copy in self.copies else name, len(self._index) + 1)

    def __len__(self) -> int:
        return len(self._index) + 1
