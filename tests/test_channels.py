"""Messages between stages: their order, what travels together, and that no pair of stages waits for each other."""

from __future__ import annotations

import queue
import random
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from synthetic import chain, dag
from torch import Tensor

from reclra_compile.arrange import arrange
from reclra_compile.distributed.channel import AHEAD, Incoming, Outgoing
from reclra_compile.distributed.forward import forward_tasks
from reclra_compile.distributed.layout import dense, packed, unpacked
from reclra_compile.distributed.messages import destinations, fields, orders
from reclra_compile.distributed.wire import SMALL, WireError
from reclra_compile.errors import RankError
from reclra_compile.ir import Device, Plan
from reclra_compile.machine import Machine
from reclra_compile.runtime.state import Errors
from reclra_compile.schedule.expand import lanes

CPU = torch.device("cpu")
WAIT = 20.0


class Memory:
    """A wire in memory on which sending is done when it has been received, as on a GPU."""

    home = CPU

    def __init__(self) -> None:
        self.queue: queue.Queue[tuple[Tensor, threading.Event]] = queue.Queue()
        self.sent = 0
        self.offered = 0

    def send(self, tensor: Tensor) -> Any:
        done = threading.Event()
        self.sent += 1
        self.queue.put((tensor, done))
        return _Sent(done)

    def receive(self, into: Tensor) -> Any:
        self.offered += 1
        return _Room(self, into)


class _Sent:
    def __init__(self, done: threading.Event) -> None:
        self.done = done

    def wait(self) -> None:
        if not self.done.wait(WAIT):
            raise WireError(True, "nobody receives")


class _Room:
    def __init__(self, wire: Memory, into: Tensor) -> None:
        self.wire, self.into = wire, into

    def wait(self) -> None:
        try:
            tensor, done = self.wire.queue.get(timeout=WAIT)
        except queue.Empty:
            raise WireError(True, "nobody sends") from None
        assert (tensor.shape, tensor.dtype) == (self.into.shape, self.into.dtype)
        self.into.copy_(tensor)
        done.set()


def on(plan: Plan, devices: int, microbatches: int) -> Plan:
    named = [Device(f"d{k}") for k in range(devices)]
    return arrange(plan, named, Machine(microbatches=microbatches))


def run(plan: Plan, live: int, seed: int, steps: int = 2) -> dict[tuple[int, int], Memory]:
    """All lanes by threads that stop now and then; a value is a vector of its name, microbatch and step."""
    ways = {"train": orders(plan)}
    wires = {pair: Memory() for pair in ways["train"]}
    to = destinations(plan)
    source = {t.writes[0]: (i, t.device) for i, t in enumerate(plan.tasks) if t.kind == "P"}
    wrong: list[str] = []

    def lane(device: int) -> None:
        rng = random.Random(seed * 100 + device)
        name = lambda i: plan.tasks[i].subject  # noqa: E731
        out = {b: Outgoing(w, {"train": ways["train"][a, b]}, name) for (a, b), w in wires.items() if a == device}
        into = {a: Incoming(w, {"train": ways["train"][a, b]}, CPU) for (a, b), w in wires.items() if b == device}
        try:
            for step in range(steps):
                for channel in into.values():
                    channel.begin("train", [1] * live, None)
                for i, m in lanes(plan)[device]:
                    if m >= live:
                        continue
                    t = plan.tasks[i]
                    if t.kind == "P":
                        out[to[i]].post("train", i, m, _value(t.writes[0], m, step), 1, None)
                    elif t.kind == "R":
                        k, frm = source[t.reads[0]]
                        if not torch.equal(into[frm].take(k, m), _value(t.reads[0], m, step)):
                            wrong.append(f"{t.id} of {m}")
                    elif rng.random() < 0.1:
                        time.sleep(rng.random() * 1e-3)
                for sender in out.values():
                    sender.finish()
        except WireError as error:
            wrong.append(f"device {device}: {error}")

    threads = [threading.Thread(target=lane, args=(d,), daemon=True) for d in range(len(plan.devices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * WAIT)
        assert not thread.is_alive()
    assert not wrong
    return wires


def _value(name: str, m: int, step: int) -> Tensor:
    """Of a length that is the same for every microbatch."""
    rng = random.Random(name)
    return torch.arange(rng.randint(1, 5), dtype=torch.float32) + 1000 * m + 100 * step + rng.random()


@pytest.mark.parametrize("seed", range(12))
def test_random_plans_run_to_their_end_and_every_message_arrives(seed: int) -> None:
    rng = random.Random(seed)
    microbatches = rng.randint(1, 5)
    plan = on(dag(seed, rng.randint(4, 9), batch=8), rng.randint(2, 4), microbatches)
    run(plan, rng.randint(1, microbatches), seed)


def test_a_packet_is_one_message_and_its_layout_travels_once() -> None:
    plan = on(chain(6), 3, 4)
    order = orders(plan)
    wires = run(plan, 4, 0, steps=3)
    for pair, wire in wires.items():
        kinds = len({p.tasks for p in order[pair]})
        assert wire.sent == 2 * kinds + 3 * len(order[pair])  # length and text of each layout, then a tensor a packet


def test_what_is_posted_in_a_row_is_one_packet() -> None:
    plan = on(dag(3, 8), 2, 2)
    alone = [p for order in orders(plan).values() for p in order]
    assert sum(len(p.tasks) for p in alone) == 2 * sum(t.kind == "P" for t in plan.tasks)
    for (a, b), order in orders(plan).items():
        place = {event: k for k, event in enumerate(lanes(plan)[a])}
        for p in order:
            ends = [place[i, p.microbatch] for i in p.tasks]
            between = lanes(plan)[a][ends[0] : ends[-1]]
            assert all(plan.tasks[i].kind in "PX" for i, _ in between)
        assert all(destinations(plan)[i] == b for p in order for i in p.tasks)


def test_the_forward_way_has_the_activities_alone() -> None:
    plan = on(chain(4), 2, 2)
    forward = forward_tasks(plan)
    assert {plan.tasks[i].kind for i in forward} <= set("FPR")
    assert sum(plan.tasks[i].kind == "F" for i in forward) == 4
    sent = [plan.tasks[i].reads[0] for order in orders(plan, forward).values() for p in order for i in p.tasks]
    assert sent
    assert all(v.startswith("z.") for v in sent)


def test_error_neurons_travel_in_the_form_that_is_read() -> None:
    plan = on(chain(4), 2, 1)
    wanted = fields(plan)
    assert set(wanted.values()) == {"e"}  # displacements are made of them; fixed synapses do not learn
    assert all(plan.tasks[i].reads[0] == "e.r3" for i in wanted)


def test_room_is_offered_ahead_of_what_is_needed() -> None:
    plan = on(chain(2), 2, 16)
    order = orders(plan, forward_tasks(plan))[0, 1]
    wire = Memory()
    out, into = Outgoing(wire, {"train": order}, str), Incoming(wire, {"train": order}, CPU)
    into.begin("train", [1] * 16, None)
    assert wire.offered == 0  # nothing is known of the first
    for p in order:
        out.post("train", p.tasks[0], p.microbatch, torch.ones(2), 1, None)
    into.take(order[0].tasks[0], 0)
    assert wire.offered == 2 + 1 + AHEAD


def test_small_tensors_of_a_packet_travel_as_one() -> None:
    plan = on(dag(3, 8), 2, 1)
    pair, order = max(orders(plan).items(), key=lambda item: max(len(p.tasks) for p in item[1]))
    packet = max(order, key=lambda p: len(p.tasks))
    order = (replace(packet, microbatch=0),)
    wire = Memory()
    out, into = Outgoing(wire, {"train": order}, str), Incoming(wire, {"train": order}, CPU)
    large = torch.randn(SMALL)
    values = {i: (torch.randn(3), None, torch.tensor([k, 2])) for k, i in enumerate(packet.tasks)}
    first = packet.tasks[0]
    values[first] = (*values[first], large, torch.empty(0, 4))
    for i in packet.tasks:
        out.post("train", i, 0, values[i], 1, None)
    assert wire.sent == 2 + 2  # a layout, what is large, and all that is small
    into.begin("train", [1], None)
    for i in reversed(packet.tasks):
        came = into.take(i, 0)
        for a, b in zip(came, values[i], strict=True):
            assert a is b is None or torch.equal(a, b)
    assert pair


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(3, 5).t(),
        torch.randn(4, 6)[:, ::2],
        torch.randn(3).expand(4, 3),
        torch.tensor(2.5, dtype=torch.bfloat16),
        torch.ones(3, dtype=torch.bool),
    ],
    ids=["channels_last", "transposed", "strided", "expanded", "scalar", "bool"],
)
def test_tensors_arrive_as_they_were(value: Tensor) -> None:
    layout, (sent,) = packed(value, "a value")
    assert sent.is_contiguous()
    came = unpacked(layout, [sent.clone()], CPU)
    assert torch.equal(came, value)
    if dense(value)[0].data_ptr() == value.data_ptr():  # no copy was made
        assert came.stride() == value.stride()


def test_nested_values_arrive_as_they_were() -> None:
    value = ({"a": [1, None, True, "x"]}, torch.Size([2, 3]), torch.float16, Errors(None, torch.ones(2)), 0.1, CPU)
    layout, sent = packed(value, "a value")
    came = unpacked(type(layout).parse(layout.text()), sent, CPU)
    assert came[:3] == value[:3]
    assert came[4:] == value[4:]
    assert came[3].e is None
    assert torch.equal(came[3].c, torch.ones(2))


def test_a_value_that_cannot_travel_is_named() -> None:
    with pytest.raises(RankError, match=r"'z\.a' is a set, which cannot be sent"):
        packed({1, 2}, "'z.a'")


def test_a_value_of_another_form_than_before_is_named() -> None:
    plan = on(chain(2), 2, 2)
    order = orders(plan, forward_tasks(plan))[0, 1]
    out = Outgoing(Memory(), {"train": order}, lambda i: plan.tasks[i].subject)
    out.post("train", order[0].tasks[0], 0, torch.ones(2), 4, None)
    with pytest.raises(RankError, match=r"'z\.r0>1' of microbatch 2 has another form .* float32 \[3\], not float32"):
        out.post("train", order[1].tasks[0], 1, torch.ones(3), 4, None)
