"""A plan as a pattern, and its simulated step.

Each device has two resources: it computes, and its link carries messages to other devices one after the other, in the
order of posting. A post takes no time to compute; the message enters the link when what was posted is ready, occupies
it for bytes ÷ rate, and arrives the link's latency after it has left. Where a device receives, it waits until the
message is there. Tasks of a device that only follow each other are one node, which changes no time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reclra_compile.ir import Plan, Task
from reclra_compile.simulate.engine import Run, run
from reclra_compile.simulate.pattern import Builder, Floats, Pattern, lanes


@dataclass(frozen=True, slots=True)
class Layout:
    """A plan's pattern: device d computes on resource d, its link is resource d + number of devices.

    Task i is part of node `node[i]` (−1 where it takes no time on a resource) and begins `offset_us[i]` after the
    node's start.
    """

    pattern: Pattern
    node: tuple[int, ...]
    offset_us: tuple[float, ...]
    length_us: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Simulation:
    """One simulated step, or several; microseconds, and bytes as the plan states them."""

    plan: Plan
    layout: Layout
    run: Run
    makespan_us: float
    batches: int = 1

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return len(self.plan.devices)

    @property
    def busy_us(self) -> tuple[float, ...]:
        """Time that each device computes."""
        return tuple(self.run.busy_us[: self.devices].tolist())

    @property
    def idle_us(self) -> tuple[float, ...]:
        """Time that each device waits, of the makespan."""
        return tuple(max(0.0, self.makespan_us - b) for b in self.busy_us)

    @property
    def link_us(self) -> tuple[float, ...]:
        """Time that the link from each device is occupied."""
        return tuple(self.run.busy_us[self.devices :].tolist())

    @property
    def utilisation(self) -> float:
        """Busy share of all devices over the makespan."""
        return sum(self.busy_us) / (self.makespan_us * self.devices) if self.makespan_us else 1.0

    @property
    def peak_bytes(self) -> tuple[int, ...]:
        """The most bytes that live on each device; empty where the plan does not state them."""
        return self.plan.placement.peak_bytes

    def starts(self, task: int) -> Floats:
        """Start of the plan's task number `task` for each microbatch; NaN for X. Of receives that follow each other all
        start when the last message is there.
        """
        node = self.layout.node[task]
        many = self.plan.schedule.microbatches * self.batches
        if node < 0:
            return np.full(many, np.nan)
        starts: Floats = self.run.start[node] + self.layout.offset_us[task]
        return starts

    def ends(self, task: int) -> Floats:
        """End of the plan's task number `task` for each microbatch."""
        ends: Floats = self.starts(task) + self.layout.length_us[task]
        return ends


def simulate(plan: Plan, batches: int = 1) -> Simulation:
    """The step that `plan` describes, exactly; `batches` steps follow each other, overlapping with staleness 1.

    Raises PlanError (S001) where tasks wait for each other in a circle.
    """
    layout = lay_out(plan)
    microbatches = plan.schedule.microbatches
    stale = plan.schedule.staleness > 0
    done = run(layout.pattern, microbatches * batches, lanes(layout.pattern, microbatches, batches, stale))
    return Simulation(plan, layout, done, done.makespan_us, batches)


def period_us(plan: Plan, step: Simulation | None = None) -> float:
    """Time of a step when steps follow each other without a pause; `step` is one, where it is already simulated."""
    if not plan.schedule.staleness:
        return (step or simulate(plan)).run.row_us
    batches = 4
    return (simulate(plan, 2 * batches).makespan_us - simulate(plan, batches).makespan_us) / batches


def lay_out(plan: Plan) -> Layout:
    """The pattern of one microbatch of `plan`."""
    return _Layouter(plan).layout()


def occupancy_us(task: Task, plan: Plan) -> float:
    """How long one microbatch of a message (P) occupies the link from its device."""
    rate = plan.devices[task.device].link_bytes_per_s
    return task.us or (task.bytes / plan.schedule.microbatches / rate * 1e6 if rate else 0.0)


class _Layouter:
    """Walks the tasks in the plan's order and makes nodes of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.devices = len(plan.devices)
        self.slow = {t.device for t in plan.tasks if t.kind == "P" and occupancy_us(t, plan)}
        self.open: list[_Node | None] = [None] * self.devices  # the node that the next task of a device may join
        self.ports: list[_Node | None] = [None] * self.devices
        self.made: list[_Node] = []
        self.of: list[tuple[_Node | None, float, float]] = []
        self.ready: dict[str, tuple[_Node, float]] = {}  # when each value is there, after the start of a node
        self.edges: list[tuple[_Node, _Node, float]] = []

    def layout(self) -> Layout:
        for task in self.plan.tasks:
            if task.kind == "P":
                self._post(task)
            elif task.kind == "X":
                self.of.append((None, 0.0, 0.0))
            else:
                self._compute(task)
        build = Builder()
        number = {id(n): build.node(n.resource, n.length_us, n.turn, n.name) for n in self.made}
        for a, b, lag in self.edges:
            build.edge(number[id(a)], number[id(b)], lag)
        return Layout(
            build.pattern(2 * self.devices),
            tuple(-1 if n is None else number[id(n)] for n, _, _ in self.of),
            tuple(offset for _, offset, _ in self.of),
            tuple(length for _, _, length in self.of),
        )

    def _compute(self, task: Task) -> None:
        turn = task.turn
        waits = [self.ready[v] for v in task.reads if v in self.ready]
        # at home the lane's order is enough, unless a turn that is too early puts a reader before the writer
        waits = [(n, lag) for n, lag in waits if n.resource != task.device or n.turn > turn]
        node = self._node(task, turn)
        if waits and node.begun:  # waiting inside a node would not be seen: whoever waits begins one
            node = self._begin(task, turn)
        self.edges += [(source, node, lag) for source, lag in waits]
        length = 0.0 if task.kind == "R" else task.us
        node.begun |= task.kind != "R"
        self.of.append((node, node.length_us, length))
        node.length_us += length
        self.ready.update(dict.fromkeys(task.writes, (node, node.length_us)))

    def _post(self, task: Task) -> None:
        turn, d = task.turn, task.device
        latency, occupied = self.plan.devices[d].link_latency_us, occupancy_us(task, self.plan)
        node = self._node(task, turn)
        node.begun = True
        if d not in self.slow:  # each message passes at once behind those before it, which were ready no later
            self.of.append((node, node.length_us, 0.0))
            self.ready[task.writes[0]] = (node, node.length_us + latency)
            return
        port = self.ports[d]
        if port is None or port.source is not node or port.source_us != node.length_us:
            port = self.ports[d] = _Node(self.devices + d, turn, self._name(task), node, node.length_us)
            self.made.append(port)
            self.edges.append((node, port, node.length_us))
        self.of.append((port, port.length_us, occupied))
        port.length_us += occupied
        self.ready[task.writes[0]] = (port, port.length_us + latency)

    def _node(self, task: Task, turn: int) -> _Node:
        node = self.open[task.device]
        return node if node is not None and node.turn == turn else self._begin(task, turn)

    def _begin(self, task: Task, turn: int) -> _Node:
        node = self.open[task.device] = _Node(task.device, turn, self._name(task))
        self.made.append(node)
        return node

    def _name(self, task: Task) -> str:
        return f"{task.id} on {self.plan.devices[task.device].name}"


@dataclass(eq=False, slots=True)
class _Node:
    """A stretch of a device's work, or messages that leave together: `source_us` after the start of `source`."""

    resource: int
    turn: int
    name: str
    source: _Node | None = None
    source_us: float = 0.0
    length_us: float = 0.0
    begun: bool = False  # it holds more than what it waits for
