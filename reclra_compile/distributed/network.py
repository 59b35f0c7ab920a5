"""What a rank's program needs of the others: channels to them, and who keeps where each one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from reclra_compile.distributed.messages import Order
from reclra_compile.ir import Plan
from reclra_compile.runtime.peers import Peers

TRAIN, FORWARD = "train", "forward"  #: ways through a plan: a step, and what leads to the output alone
Ways = Mapping[str, Mapping[tuple[int, int], Order]]  #: for each way, what goes from a stage to another, in order


class Outgoing(Protocol):
    """What this stage sends to another."""

    def post(self, way: str, task: int, m: int, value: Any, samples: int, mode: object) -> None:
        """Send a value of microbatch m, of P task `task`; raises WireError."""
        ...

    def finish(self) -> None:
        """Return when everything has left; raises WireError."""
        ...


class Incoming(Protocol):
    """What another stage sends to this one."""

    def begin(self, way: str, samples: Sequence[int], mode: object) -> None:
        """A step or a forward pass begins, with microbatches of these sizes; raises WireError."""
        ...

    def take(self, task: int, m: int) -> Any:
        """The value of microbatch m that P task `task` sends: waits for it; raises WireError."""
        ...


class Network(Peers, Protocol):
    """The other ranks, and channels to them."""

    @property
    def device(self) -> torch.device:
        """Where this rank's tensors are."""
        ...

    @property
    def apart(self) -> bool:
        """True where the other ranks have copies of the model of their own."""
        ...

    @property
    def across(self) -> Any:
        """The group of the ranks with this stage, None where there is one replica."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """Inside, a collective operation that fails is a RankError (R104, R105)."""
        ...

    def channels(self, ways: Ways, plan: Plan) -> tuple[Mapping[int, Outgoing], Mapping[int, Incoming]]:
        """What leaves this stage and what arrives, by the other stage."""
        ...


class Watch(Protocol):
    """Who keeps for the other ranks where this one is."""

    def at(self, step: int, task: str, microbatch: int) -> None:
        """This rank begins a task; step and microbatch count from 0."""

    def seen(self, rank: int) -> str:
        """What is known of another rank, in words."""
        ...


class Unwatched:
    """Nobody keeps where this rank is."""

    def at(self, step: int, task: str, microbatch: int) -> None:
        """Nothing is kept."""

    def seen(self, rank: int) -> str:
        """Nothing is known."""
        return f"what rank {rank} was doing is not known"
