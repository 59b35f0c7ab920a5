"""Ranks that are threads of one process: values pass through memory, from one device's to another's."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from reclra_compile.distributed.network import Ways
from reclra_compile.distributed.wire import WireError
from reclra_compile.ir import Plan
from reclra_compile.runtime.state import Errors

PATIENCE = 1.0  #: seconds after which a waiting thread looks whether the others still run


class Meeting:
    """Where threads of one step leave values, and come together; one that fails lets the others go."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._arrived = threading.Condition()
        self._values: dict[tuple[int, int, int], Any] = {}
        self._texts: dict[int, str] = {}
        self._barrier = threading.Barrier(count)
        self.failed = False

    def begin(self) -> None:
        """Forget what a failed step has left."""
        self._values.clear()
        self._barrier.reset()
        self.failed = False

    def fail(self) -> None:
        """A thread has failed: whoever waits for it ends with WireError."""
        with self._arrived:
            self.failed = True
            self._arrived.notify_all()
        self._barrier.abort()

    def put(self, key: tuple[int, int, int], value: Any) -> None:
        """Leave a value."""
        with self._arrived:
            self._values[key] = value
            self._arrived.notify_all()

    def take(self, key: tuple[int, int, int]) -> Any:
        """Take a value, when it is there."""
        with self._arrived:
            while key not in self._values:
                if self.failed:
                    raise WireError(False, "another thread has failed")
                self._arrived.wait(PATIENCE)
            return self._values.pop(key)

    def gather(self, rank: int, text: str) -> list[str]:
        """The texts of all threads, by rank."""
        self._texts[rank] = text
        try:
            self._barrier.wait()
            found = [self._texts[k] for k in range(self.count)]
            self._barrier.wait()  # before the next one writes
        except threading.BrokenBarrierError as error:
            raise WireError(False, "another thread has failed") from error
        return found


@dataclass(frozen=True)
class LocalMesh:
    """One thread's place among those of a process, one for each stage; implements `network.Network`."""

    rank: int
    stages: int
    device: torch.device
    meeting: Meeting = field(compare=False)
    replicas: int = 1
    across: Any = None
    apart: bool = False

    @property
    def count(self) -> int:
        """All threads."""
        return self.stages

    @property
    def stage(self) -> int:
        """The device of the plan that this thread runs."""
        return self.rank

    @property
    def replica(self) -> int:
        """There is one."""
        return 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums of each value over all threads."""
        rows = [[float(v) for v in text.split()] for text in self.gather(" ".join(map(repr, values)))]
        return [sum(column) for column in zip(*rows, strict=True)]

    def gather(self, text: str) -> list[str]:
        """The text of each thread, by rank."""
        return self.meeting.gather(self.rank, text)

    def barrier(self) -> None:
        """Wait for all."""
        self.gather("")

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Nothing collective can fail by itself."""
        yield

    def channels(self, ways: Ways, plan: Plan) -> tuple[Mapping[int, Channel], Mapping[int, Channel]]:
        """What leaves this stage and what arrives, by the other stage."""
        pairs = {pair for order in ways.values() for pair in order}
        leaving = {b: Channel(self, a, b) for a, b in pairs if a == self.stage}
        arriving = {a: Channel(self, a, b) for a, b in pairs if b == self.stage}
        return leaving, arriving


class Channel:
    """From one thread to another."""

    def __init__(self, mesh: LocalMesh, source: int, target: int) -> None:
        self._mesh, self._pair = mesh, (source, target)

    def post(self, way: str, task: int, m: int, value: Any, samples: int, mode: object) -> None:
        """Leave a value for the other thread, with what tells its device when it is made."""
        event = None
        if self._mesh.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._mesh.device))
        self._mesh.meeting.put((self._pair[1], task, m), (value, event))

    def finish(self) -> None:
        """What is left is held until it is taken."""

    def begin(self, way: str, samples: Sequence[int], mode: object) -> None:
        """Values come as they are."""

    def take(self, task: int, m: int) -> Any:
        """The value, on this thread's device."""
        value, event = self._mesh.meeting.take((self._pair[1], task, m))
        device = self._mesh.device
        if event is not None and device.type == "cuda":
            torch.cuda.current_stream(device).wait_event(event)
        elif event is not None:
            event.synchronize()
        return moved(value, device)


def moved(value: Any, device: torch.device) -> Any:
    """A value of a plan on another device; itself where it is there."""
    if isinstance(value, Tensor):
        there = value.to(device, non_blocking=device.type == "cuda")  # the host would read before it is there
        if value.is_cuda and device.type == "cuda":
            value.record_stream(torch.cuda.current_stream(device))  # it may be freed over there meanwhile
        return there
    if isinstance(value, Errors):
        return Errors(*(moved(v, device) for v in value))
    if type(value) in (tuple, list):
        return type(value)(moved(v, device) for v in value)
    if isinstance(value, dict):
        return {k: moved(v, device) for k, v in value.items()}
    return device if isinstance(value, torch.device) else value
