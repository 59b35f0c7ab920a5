"""One direction between two stages: packets are posted, expected ahead, and taken when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reclra_compile.distributed.layout import Layout, empty, packed, unpacked
from reclra_compile.distributed.messages import Order, Packet
from reclra_compile.distributed.wire import Sending, Wire, fused, rooms, spread
from reclra_compile.errors import Fault, RankError

AHEAD = 4  #: packets that a receiver has room for before it needs them

Key = tuple[tuple[int, ...], int, object]  #: a packet's tasks, the samples of its microbatch, and the mode of the step
Kind = Callable[[int], int]  #: microbatch → its samples


@dataclass(frozen=True)
class _Expected:
    """A packet that is on its way: room for it, and what to wait for."""

    layouts: tuple[Layout, ...]
    tensors: list[Tensor]
    rooms: list[Tensor]
    works: list[Sending]


class Outgoing:
    """Posts packets to one stage; the first of each kind goes with its layout, which the other side keeps."""

    def __init__(self, wire: Wire, orders: dict[str, Order], name: Callable[[int], str]) -> None:
        self._wire, self._orders, self._name = wire, orders, name
        self._packets = {way: {i: p for p in order for i in p.tasks} for way, order in orders.items()}
        self._known: dict[Key, tuple[Layout, ...]] = {}
        self._values: dict[int, list[Any]] = {}
        self._works: list[Sending] = []

    def post(self, way: str, task: int, m: int, value: Any, samples: int, mode: object) -> None:
        """Add a message to its packet, which is sent when it is whole."""
        packet = self._packets[way][task]
        values = self._values.setdefault(m, [])
        values.append(value)
        if task != packet.tasks[-1]:
            return
        del self._values[m]
        made = [packed(v, f"'{self._name(i)}'") for i, v in zip(packet.tasks, values, strict=True)]
        layouts = tuple(layout for layout, _ in made)
        key = (packet.tasks, samples, mode)
        before = self._known.setdefault(key, layouts)
        if before is layouts:
            self._introduce(layouts)
        elif before != layouts:  # perhaps in the order of its dimensions alone
            made = [packed(v, "", like) for v, like in zip(values, before, strict=True)]
        if tuple(layout for layout, _ in made) != before:
            raise RankError(
                Fault("R109", f"'{self._name(packet.tasks[0])}' of microbatch {m + 1} has another form than in the "
                      f"first step with as many samples: {_forms(layouts)}, not {_forms(before)}",
                      fix="values that regions pass on must have shapes that follow from the batch's alone")
            )  # fmt: skip
        self._works += [self._wire.send(t) for t in fused([t for _, tensors in made for t in tensors]) if t.numel()]

    def _introduce(self, layouts: Sequence[Layout]) -> None:
        text = torch.frombuffer(bytearray("\n".join(x.text() for x in layouts).encode()), dtype=torch.uint8)
        for part in (torch.tensor([len(text)]), text):
            self._works.append(self._wire.send(part.to(self._wire.home)))

    def finish(self) -> None:
        """Wait until everything has left."""
        works, self._works = self._works, []
        for work in works:
            work.wait()


class Incoming:
    """Takes packets from one stage. Room for the next ones is offered ahead, as far as their layouts are known."""

    def __init__(self, wire: Wire, orders: dict[str, Order], device: torch.device) -> None:
        self._wire, self._device = wire, device
        self._orders = orders
        self._known: dict[Key, tuple[Layout, ...]] = {}
        self._order: list[Packet] = []
        self._place: dict[tuple[int, int], int] = {}
        self._expected: list[_Expected] = []
        self._arrived: dict[tuple[int, int], Any] = {}
        self._taken = 0

    def begin(self, way: str, samples: Sequence[int], mode: object) -> None:
        """A step or a forward pass begins, with microbatches of these sizes."""
        self._samples, self._mode = samples, mode
        self._order = [p for p in self._orders.get(way, ()) if p.microbatch < len(samples)]
        self._place = {(i, p.microbatch): k for k, p in enumerate(self._order) for i in p.tasks}
        self._expected, self._taken = [], 0
        self._offer(AHEAD)

    def take(self, task: int, m: int) -> Any:
        """The value that P task `task` has sent of microbatch m; waits for it. Raises WireError."""
        if (task, m) not in self._arrived:
            place = self._place[task, m]
            while self._taken <= place:  # what was sent before it is kept until it is asked for
                self._unpack()
        return self._arrived.pop((task, m))

    def _unpack(self) -> None:
        packet = self._order[self._taken]
        if len(self._expected) <= self._taken:
            self._learn(packet)
            self._offer(self._taken + AHEAD)
        came = self._expected[self._taken]
        for work in came.works:
            work.wait()
        spread(came.rooms, came.tensors)
        at = 0
        for i, layout in zip(packet.tasks, came.layouts, strict=True):
            mine = came.tensors[at : at + len(layout.specs)]
            self._arrived[i, packet.microbatch] = unpacked(layout, mine, self._device)
            at += len(layout.specs)
        self._expected[self._taken] = _NOTHING
        self._taken += 1
        self._offer(self._taken + AHEAD)

    def _offer(self, last: int) -> None:
        """Have room for the packets up to `last`, as far as their layouts are known."""
        for packet in self._order[len(self._expected) : last]:
            layouts = self._known.get(self._key(packet))
            if layouts is None:
                return
            tensors = [t for layout in layouts for t in empty(layout, self._device)]
            found = rooms(tensors)
            works = [self._wire.receive(t) for t in found if t.numel()]
            self._expected.append(_Expected(layouts, tensors, found, works))

    def _learn(self, packet: Packet) -> None:
        """Receive the layouts of a packet that is the first of its kind; those before it have all been taken."""
        size = torch.zeros(1, dtype=torch.int64, device=self._wire.home)
        self._wire.receive(size).wait()
        text = torch.empty(int(size), dtype=torch.uint8, device=self._wire.home)
        self._wire.receive(text).wait()
        lines = bytes(text.tolist()).decode().split("\n")
        self._known[self._key(packet)] = tuple(Layout.parse(line) for line in lines)

    def _key(self, packet: Packet) -> Key:
        return packet.tasks, self._samples[packet.microbatch], self._mode


_NOTHING = _Expected((), [], [], [])


def _forms(layouts: Sequence[Layout]) -> str:
    return ", ".join(f"{dtype} {list(shape)}" for x in layouts for dtype, shape, _ in x.specs) or "nothing"
