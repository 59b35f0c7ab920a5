"""The part of a plan that one rank runs: its stage's lane, with messages to and from the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reclra_compile.distributed.averaging import Averaging, all_rows, averaged_buffers
from reclra_compile.distributed.evaluation import Evaluated, evaluation
from reclra_compile.distributed.forward import forward_tasks
from reclra_compile.distributed.messages import destinations, fields, orders
from reclra_compile.distributed.network import FORWARD, TRAIN, Network, Outgoing, Unwatched, Watch
from reclra_compile.distributed.wire import WireError
from reclra_compile.errors import Fault, RankError, TrainingError
from reclra_compile.ir import Plan, Task
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.microbatch import microbatches
from reclra_compile.runtime.mode import in_mode_of
from reclra_compile.runtime.precision import autocast_of
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.state import Errors, Slots, StepState, buffers_aside
from reclra_compile.schedule.expand import Event, Lane, lanes


class RankProgram(Program):
    """Executes one device's tasks of a plan; the ranks of a mesh together execute all.

    Every rank calls `step` with the same whole batch. `.grad` is filled for the parameters and synapses that are held
    here, summed over replicas, so that an optimizer over `parameters()` descends; the loss that `step` returns is this
    rank's part of the batch's, which `peers.total` adds up.
    """

    def __init__(
        self, plan: Plan, model: nn.Module, linked: Linked, synapses: nn.Module, output: str | int | None,
        mesh: Network, held: frozenset[str], evaluates: Mapping[str, Evaluated] | None = None,
    ) -> None:  # fmt: skip
        """`held`: the names, in the model's state_dict, of what this rank holds; `evaluates`: regions in eval mode."""
        self.peers: Network = mesh
        self.held = held
        self.watch: Watch = Unwatched()
        self.steps_done = 0
        self.given_seed: int | None = None  #: where random streams start, in place of a draw of torch's generator
        self._placed = dict(plan.placement.regions)
        self._fields, self._to = fields(plan), destinations(plan)
        self._from = {t.writes[0]: (i, t.device) for i, t in enumerate(plan.tasks) if t.kind == "P"}
        forward = forward_tasks(plan)
        ways = {TRAIN: orders(plan), FORWARD: orders(plan, forward)}
        self._out, self._in = mesh.channels(ways, plan)
        super().__init__(plan, model, linked, synapses, output)
        self._forward_lane = tuple((i, m) for i, m in self._sequence if i in forward)
        self._averaging = Averaging(linked, self._sequence, mesh) if mesh.replicas > 1 else None
        self._way = TRAIN
        self._evaluating = {
            i: evaluation(t, evaluates[t.subject], linked)
            for i, t in enumerate(plan.tasks) if t.kind == "F" and evaluates and t.subject in evaluates
        }  # fmt: skip
        self._rows: tuple[str, int] | None = None  # the loss's reduction, and rows of the output per sample

    def _built(self, task: Task) -> Step:
        if task.device != self.peers.stage:
            return _elsewhere
        if task.kind == "P":
            return self._posting(task)
        return self._receiving(task) if task.kind == "R" else super()._built(task)

    def _regions(self) -> list[nn.Module]:
        here = (r.name for r in self.plan.regions if self._placed[r.name] == self.peers.stage)
        return [m for name in here for m in self._linked.modules[name]]

    def _seed(self) -> int:
        return super()._seed() if self.given_seed is None else self.given_seed

    def _order(self) -> Lane:
        return lanes(self.plan)[self.peers.stage]

    def _mine(self, count: int) -> range:
        replica, replicas = self.peers.replica, self.peers.replicas
        if count < replicas:
            raise TrainingError(
                Fault("R114", f"a batch that has {count} parts at most is too small for {replicas} replicas",
                      fix="give larger batches, or drop the last one")
            )  # fmt: skip
        return range(replica * count // replicas, (replica + 1) * count // replicas)

    def _posting(self, task: Task) -> Step:
        (i, _), slot = self._from[task.writes[0]], self._linked.slot(task.reads[0])
        to, wants = self._to[i], self._fields.get(i, "")
        out = self._out[to]

        def run(v: Slots) -> None:
            value, state = v[slot], v[0]
            if wants and isinstance(value, Errors):
                value = Errors(*(x if name in wants else None for name, x in zip("ec", value, strict=True)))  # type: ignore[arg-type]
            try:
                out.post(self._way, i, state.lane, value, state.samples, self._mode_of(state))
            except WireError as error:
                raise self._lost(error, task, state.lane, to) from error

        return run

    def _receiving(self, task: Task) -> Step:
        i, frm = self._from[task.reads[0]]
        slot, source = self._linked.slot(task.writes[0]), self._in[frm]

        def run(v: Slots) -> None:
            try:
                v[slot] = source.take(i, v[0].lane)
            except WireError as error:
                raise self._lost(error, task, v[0].lane, frm) from error

        return run

    def _mode_of(self, state: StepState) -> object:
        """What the form of messages depends on beside the batch's size."""
        return self._way, str(state.autocast), self.model.training

    def _parts(self, batch: Sequence[Any]) -> Tensor:
        if self._rows is None:
            self._rows = self._rehearsed(batch)
        averaging = self._averaging
        loss = super()._parts(batch)
        for out in self._out.values():
            self._finished(out)
        if averaging is not None:
            with self.peers.together():
                averaging.finish()
        self.steps_done += 1
        return loss

    def _all(self, rows: Tensor) -> Tensor:
        if self.peers.replicas == 1:
            return rows
        with self.peers.together():
            return all_rows(rows, self.peers)

    def _live(self, batch: Sequence[Any]) -> list[Slots]:
        live = super()._live(batch)
        for k, slots in enumerate(live):
            slots[0].lane = k
            slots[self._loss] = torch.zeros((), device=self.peers.device)
            if self._rows is not None:
                slots[0].scaled(self._rows[0], self._rows[1] * slots[0].samples)
        self._expect(TRAIN, [slots[0] for slots in live])
        if self._averaging is not None:
            self._averaging.begin()
        return live

    def _expect(self, way: str, states: Sequence[StepState]) -> None:
        self._way = way
        samples, mode = [s.samples for s in states], self._mode_of(states[0])
        for stage, source in self._in.items():
            try:
                source.begin(way, samples, mode)
            except WireError as error:
                raise self._lost(error, None, 0, stage) from error

    def _follow(self, live: list[Slots], sequence: Iterable[Event]) -> None:
        watch, tasks, step = self.watch, self.plan.tasks, self.steps_done
        averaging = self._averaging if self._way == TRAIN else None

        def watched() -> Iterator[Event]:
            for i, m in sequence:
                if m < len(live):
                    watch.at(step, tasks[i].id, m)
                    yield i, m
                    if averaging is not None:
                        averaging.done(i, m == len(live) - 1)

        super()._follow(live, watched())

    def _rehearsed(self, batch: Sequence[Any]) -> tuple[str, int]:
        """The loss's reduction and the output's rows per sample, for all ranks: only one sees the loss.

        The first microbatch goes forward once more than it will in the step; what modules keep is put back.
        """
        parts = microbatches(batch, self.plan.schedule.microbatches * self.peers.replicas, self._fewest)
        mine = self._mine(len(parts))
        n, part = parts[mine[0]]
        state = StepState(autocast=autocast_of(batch), samples=n, whole=n, batch=n)
        slots = self._filled(part, state)
        self._expect(FORWARD, [state])
        loss_task = self._after_loss - 1
        found = ""
        with buffers_aside(self._regions()):
            self._follow([slots], (e for e in self._forward_lane if e[1] == 0))
            if self.plan.tasks[loss_task].device == self.peers.stage:
                self._steps[loss_task](slots)
                found = f"{self._linked.reduction} {state.batch} {n}"
        for out in self._out.values():
            self._finished(out)
        reduction, rows, samples = next(text for text in self.peers.gather(found) if text).split()
        self._linked.reduction = reduction
        return reduction, int(rows) // int(samples)

    def predict(self, *inputs: Any) -> Tensor | None:
        """The model's output, on the rank of replica 0 that has the loss; None elsewhere. Every rank calls it.

        Regions run in the model's mode; raises TrainingError (T027) where they were traced in another for good.
        """
        if len(inputs) != len(self._inputs):
            raise TrainingError(Fault("T003", f"predict takes {len(self._inputs)} input(s), not {len(inputs)}"))
        seed = self._seed() if self.model.training else 0  # on all replicas, as they share torch's random state
        if self.peers.replica:
            return None
        parts = microbatches(inputs, self.plan.schedule.microbatches)
        autocast = autocast_of(inputs)
        states = [
            StepState(samples=n, whole=n, batch=n, number=k, lane=k, seed=seed, autocast=autocast)
            for k, (n, _) in enumerate(parts)
        ]
        live = [self._filled(part, state) for state, (_, part) in zip(states, parts, strict=True)]
        again = self._evaluating if not self.model.training else {}
        plain, tasks = self._steps, self.plan.tasks
        self._steps = [again.get(i) or self._outputs_alone(tasks[i], run) for i, run in enumerate(plain)]
        try:
            with torch.no_grad(), in_mode_of(self.model, () if again else self._regions()):
                self._expect(FORWARD, states)
                self._follow(live, self._forward_lane)
                for out in self._out.values():
                    self._finished(out)
        finally:
            self._steps = plain
        loss = self.plan.tasks[self._after_loss - 1]
        if loss.device != self.peers.stage:
            return None
        output = self._linked.slot.on(loss.device, loss.reads[0])
        return torch.cat([slots[output] for slots in live])

    def _outputs_alone(self, task: Task, run: Step) -> Step:
        """Task F without what it leaves for errors."""
        if task.kind != "F" or task.device != self.peers.stage:
            return run
        h = self._linked.slot.on(task.device, f"h.{task.subject}")

        def forward(v: Slots) -> None:
            run(v)
            if h < len(v):
                v[h] = None

        return forward

    def named_state(self) -> dict[str, Tensor]:
        """The model's parameters and buffers that are held here, by their names in its state_dict."""
        return {name: t for name, t in self.model.state_dict().items() if name in self.held}

    def model_parameters(self) -> Iterator[nn.Parameter]:
        """The model's parameters that are held here."""
        return (p for name, p in self.model.named_parameters() if name in self.held)

    def settle_buffers(self) -> None:
        """Let replicas have the same buffers: the mean of numbers, those of replica 0 where they are counts."""
        if self.peers.replicas > 1:
            buffers = dict(self.model.named_buffers())
            with self.peers.together():
                averaged_buffers([b for name, b in buffers.items() if name in self.held], self.peers, self.peers.across)

    def clip(self, max_norm: float) -> None:
        """Scale all gradients so that their norm, over all ranks, is at most `max_norm`. Every rank calls it."""
        own = [p for p in self.parameters() if p.grad is not None]
        squares = sum(float(p.grad.double().square().sum()) for p in own if p.grad is not None)
        norm = (self.peers.total([squares])[0] / self.peers.replicas) ** 0.5
        nn.utils.clip_grads_with_norm_(own, max_norm, torch.tensor(norm, dtype=torch.float64))

    def first_non_finite(self, *inputs: Any) -> str | None:
        """The first region here whose parameters are not finite; None if all are."""
        named = dict(self.model.named_parameters())
        for region in self.plan.regions:
            if any(p in self.held and not named[p].isfinite().all() for p in region.parameters if p in named):
                return region.name
        return None

    def _finished(self, out: Outgoing) -> None:
        try:
            out.finish()
        except WireError as error:
            to = next(stage for stage, one in self._out.items() if one is out)
            raise self._lost(error, None, 0, to) from error

    def _lost(self, error: WireError, task: Task | None, m: int, stage: int) -> RankError:
        """What is said where a message does not come, or cannot be sent."""
        peers = self.peers
        mine, other = peers.rank, peers.replica * peers.stages + stage
        doing = f"'{task.id}' of microbatch {m + 1}" if task else "its last messages"
        if not error.late:
            return RankError(
                Fault("R105", f"rank {mine} lost rank {other} at {doing}, step {self.steps_done + 1}: {error}",
                      fix="see what the other rank says")
            )  # fmt: skip
        return RankError(
            Fault("R104", f"rank {mine} waited too long for rank {other} at {doing}, step {self.steps_done + 1}; "
                  f"{self.watch.seen(other)}", fix="if steps really take so long, give a longer --rank-timeout")
        )  # fmt: skip


def _elsewhere(v: Slots) -> None:
    """A task of another rank."""
    raise AssertionError("this task belongs to another rank")
