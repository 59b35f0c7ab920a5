"""A plan linked to a model: the one mutable thing, and what a training loop talks to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reclra_compile.errors import Fault, TrainingError
from reclra_compile.frontend.outputs import choose, pick
from reclra_compile.ir import Plan, Task
from reclra_compile.runtime.discrepancy import Discrepancy, averaged
from reclra_compile.runtime.learned import Learned, restore
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.loss import LossFunction
from reclra_compile.runtime.microbatch import fewest_samples, microbatches
from reclra_compile.runtime.mode import in_mode_of
from reclra_compile.runtime.peers import Alone, Peers
from reclra_compile.runtime.precision import autocast_of, outside_autocast
from reclra_compile.runtime.random_tasks import draws
from reclra_compile.runtime.shares import check_parts, shares
from reclra_compile.runtime.stale import Delayed
from reclra_compile.runtime.state import Slots, StepState
from reclra_compile.runtime.tasks import build
from reclra_compile.schedule.expand import Event, Lane, interleaved
from reclra_compile.schedule.settling import settles

if TYPE_CHECKING:
    from reclra_compile.export.compiled import CompiledStep
    from reclra_compile.export.step_graph import StepGraph
    from reclra_compile.runtime.recorder import Recorder

OnTask = Callable[[Task, Callable[[str], Any]], None]
_PLAIN = contextlib.nullcontext()


class Program(Learned):
    """Executes a plan on its model: `loss = program.step(x, y)` fills `.grad`; any optimizer descends.

    The model keeps its own parameters: after training, `model.eval()(x)` uses them.
    """

    peers: Peers = Alone()  #: the processes that train together; methods that say so have to be called by all of them
    recorder: Recorder | None = None  #: what records steps (`recording`)

    def __init__(
        self, plan: Plan, model: nn.Module, linked: Linked, synapses: nn.Module, output: str | int | None = None
    ) -> None:
        super().__init__(plan, model, linked, synapses)
        self._output = output
        self._inputs = [linked.slot(name) for name, _, _ in plan.inputs]
        self._y, self._loss = linked.slot("y"), linked.slot("loss")
        self._steps = [self._built(task) for task in plan.tasks]
        linked.slot.device = None
        self._sequence = self._order()
        self._passes = [task.kind in "FL" or task.wave < 0 for task in plan.tasks]
        self._after_loss = 1 + next(k for k, task in enumerate(plan.tasks) if task.kind == "L")
        self.own_streams = any(draws(task, linked) for task in plan.tasks)
        self._delayed = Delayed(self) if plan.schedule.staleness else None
        self._discrepancy: dict[str, Tensor] | None = None
        self._graphs: Any = None  # step graphs, for torch.compile
        self._unchecked = True  # whether the loss of a batch is made of those of its microbatches
        self._fewest = fewest_samples(m for modules in linked.modules.values() for m in modules)

    def _built(self, task: Task) -> Step:
        """The closure of one task."""
        return build(task, self._linked)

    def _order(self) -> Lane:
        """The tasks and microbatches that this process runs, in order."""
        return interleaved(self.plan)

    def step(self, *batch: Any) -> Tensor:
        """Forward pass and schedule on `*inputs, target`; returns the loss (a detached scalar).

        Adds to `.grad` of the model's parameters and of the synapses, as `loss.backward()` does: call
        `optimizer.zero_grad()` before it. Raises TrainingError for a wrong number of inputs (T003), or where they
        (T028) or the loss (T029) cannot be cut into microbatches.
        """
        if len(batch) != len(self._inputs) + 1:
            raise TrainingError(
                Fault("T003", f"step takes {len(self._inputs)} input(s) and a target, not {len(batch)} arguments")
            )
        if torch.compiler.is_compiling():  # torch.compile(program.step)
            from reclra_compile.export.compiled import seen_by_compiler

            return seen_by_compiler(self, batch)
        with torch.no_grad(), self.recorder or _PLAIN, self._delayed or _PLAIN:
            return self._whole(batch) if self._linked.alone else self._parts(batch)

    def _whole(self, batch: Sequence[Any]) -> Tensor:
        """One device and one microbatch: the plan's tasks in order."""
        slots = self._filled(batch, StepState(autocast=autocast_of(batch)))
        state: StepState = slots[0]
        for run in self._steps[: self._after_loss]:
            run(slots)
        with outside_autocast(slots[self._loss].device.type):
            for run in self._steps[self._after_loss :]:
                run(slots)
            state.finish()
        self._discrepancy = state.discrepancy
        loss: Tensor = slots[self._loss]
        return loss

    def _parts(self, batch: Sequence[Any]) -> Tensor:
        """All lanes of this process, one task after the other."""
        live = self._live(batch)
        self._follow(live, self._sequence)
        if self._unchecked and live[0][0].parts > 1:
            self._check(live, batch[-1])
            self._unchecked = False
        self._discrepancy = averaged([slots[0] for slots in live])
        return torch.stack([slots[self._loss] for slots in live]).sum()

    def _live(self, batch: Sequence[Any]) -> list[Slots]:
        """The slots of each microbatch."""
        parts = microbatches(batch, self.plan.schedule.microbatches * self.peers.replicas, self._fewest)
        weights = shares(self.loss_fn, [part[-1] for _, part in parts], [n for n, _ in parts])
        autocast, whole = autocast_of(batch), sum(n for n, _ in parts)
        seed = self._seed()
        return [
            self._filled(parts[m][1], StepState(autocast=autocast, number=m, part=weights[m], samples=parts[m][0],
                                                whole=whole, parts=len(parts), batch=parts[m][0], seed=seed))
            for m in self._mine(len(parts))
        ]  # fmt: skip

    def _seed(self) -> int:
        """Where this step's random streams start; one draw of torch's generator where there are any."""
        return int(torch.randint(2**40, ())) if self.own_streams else 0

    def _mine(self, count: int) -> range:
        """The microbatches, of `count`, that this process runs."""
        return range(count)

    def _follow(self, live: list[Slots], sequence: Iterable[Event]) -> None:
        """Run tasks of microbatches in order; those of microbatches that a small batch lacks are left out."""
        autocast = live[0][0].autocast
        for i, m in sequence:
            if m >= len(live):
                continue
            quiet = autocast is not None and not self._passes[i]
            with outside_autocast(autocast[0]) if quiet and autocast else contextlib.nullcontext():
                self._steps[i](live[m])
            if self._unchecked and i == self._after_loss - 1:  # before anything frees them
                output, gradient = (live[m][self._linked.slot(v)] for v in (self.plan.tasks[i].reads[0], "d.loss"))
                live[m][0].seen = output, gradient[0]

    def _check(self, live: list[Slots], target: Any) -> None:
        """Raise TrainingError (T029) where the losses of microbatches do not make that of the batch."""
        seen = [slots[0].seen for slots in live if slots[0].seen]
        if seen:
            outputs, gradients = zip(*seen, strict=True)
            check_parts(self.loss_fn, self._all(torch.cat(outputs)), self._all(torch.cat(gradients)), target)

    def _all(self, rows: Tensor) -> Tensor:
        """These rows of all microbatches of the batch, from those of this process."""
        return rows

    def _filled(self, batch: Sequence[Any], state: StepState) -> list[Any]:
        """Slots that hold the inputs and, where `batch` goes on, the target."""
        slots: list[Any] = [None] * len(self._linked.slot)
        slots[0] = state
        for i, x in zip((*self._inputs, self._y), batch, strict=False):
            slots[i] = x
        return slots

    def observe(self, *batch: Any, before: OnTask, after: OnTask) -> Tensor:
        """One `step` that calls `before(task, read)` and `after(task, read)` around each task.

        `read(name)` gives the value of that name in the plan, as the task sees it on its device, where it is live, and
        None elsewhere.
        """
        plain, slot = self._steps, self._linked.slot

        def watched(task: Task, run: Step) -> Step:
            def around(v: Slots) -> None:
                def read(name: str) -> Any:
                    k = slot.on(task.device, name)
                    return v[k] if k < len(v) else None

                before(task, read)
                run(v)
                after(task, read)

            return around

        self._steps = [watched(task, run) for task, run in zip(self.plan.tasks, plain, strict=True)]
        try:
            return self.step(*batch)
        finally:
            self._steps = plain

    def recording(self) -> contextlib.AbstractContextManager[Recorder]:
        """`with program.recording() as recorder:` keeps when the tasks of steps run; `recorder.write(file, batch)`."""
        from reclra_compile.runtime.recorder import recording

        return recording(self)

    @property
    def settles(self) -> bool:
        """True where states settle to an equilibrium, so that the model's plain forward pass is not what it does."""
        return settles(self.plan.targets)

    def predict(self, *inputs: Any) -> Tensor | None:
        """The output that the loss sees, without a graph: the model's, or where its states settle (E13)."""
        if not self.settles:
            with torch.no_grad():
                return self.output_of(self.model(*inputs))
        if len(inputs) != len(self._inputs):
            raise TrainingError(Fault("T003", f"predict takes {len(self._inputs)} input(s), not {len(inputs)}"))
        slots = self._filled(inputs, StepState(autocast=autocast_of(inputs)))
        with torch.no_grad(), in_mode_of(self.model, self._regions()):
            for task, run in zip(self.plan.tasks, self._steps, strict=True):
                if task.kind == "L":
                    break
                run(slots)
        output: Tensor = slots[self._linked.slot(f"s.{self._linked.root}")]
        return output

    def _regions(self) -> list[nn.Module]:
        """The modules of the regions that this process runs."""
        return [m for modules in self._linked.modules.values() for m in modules]

    @property
    def discrepancy(self) -> Discrepancy:
        """D(Θ) of the last step; raises TrainingError (T004) before the first."""
        if self._discrepancy is None:
            raise TrainingError(Fault("T004", "no step has been taken yet, so there is no discrepancy"))
        return Discrepancy.of(self.plan, self._discrepancy)

    @property
    def loss_fn(self) -> LossFunction:
        """The loss that the output is compared to the target with."""
        return self._linked.loss_fn

    def output_of(self, result: Any) -> Tensor:
        """The tensor that the loss sees, out of what the model's forward returns (a tensor, a dict, a tuple)."""
        output: Tensor = pick(result, choose(result, self._output, self.model))
        return output

    def named_state(self) -> dict[str, Tensor]:
        """The model's parameters and buffers that this process holds, by their names in its state_dict."""
        return dict(self.model.state_dict())

    def settle_buffers(self) -> None:
        """Let buffers, such as batch statistics, be the same in all replicas; one has nothing to settle."""

    def state_dict(self) -> dict[str, Any]:
        """The synapses' state, the plan's fingerprint, and what staleness keeps; the model saves itself."""
        state = {"fingerprint": self.plan.fingerprint, "synapses": self.synapses.state_dict()}
        return state | ({"before": self._delayed.state()} if self._delayed else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the synapses; raises PlanError (P011) for another model's or wiring's state."""
        restore(self.synapses, state, self.plan)
        if self._delayed:
            self._delayed.restore(state.get("before"))

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model's modules hold the parameters that tasks work on."""
        return contextlib.nullcontext()

    def as_step_graph(self, *example_batch: Any) -> StepGraph:
        """The step as one flat `torch.fx.GraphModule`, for batches as `*example_batch`: (loss, {name: gradient}).

        Without one, a batch of the plan's size is made up. Raises UserError (X…) for what a graph cannot say.
        """
        from reclra_compile.export.step_graph import step_graph

        return step_graph(self, *example_batch)

    def compile_step(self, backend: Any = "inductor", **options: Any) -> CompiledStep:
        """A callable like `step` that runs step graphs through `torch.compile(…, backend=backend, **options)`."""
        from reclra_compile.export.compiled import CompiledStep

        return CompiledStep(self, backend, **options)

    def first_non_finite(self, *inputs: Any) -> str | None:
        """The first region, in the model's order, whose output or parameters are not finite; None if all are."""
        named = dict(self.model.named_parameters())
        slots = self._filled(inputs[: len(self._inputs)], StepState())
        regions = {r.name: r for r in self.plan.regions}
        with torch.no_grad():
            for task, run in zip(self.plan.tasks, self._steps, strict=True):
                if task.wave >= 0:
                    break
                region = regions.get(task.subject) if task.kind == "F" else None
                if region and any(not named[p].isfinite().all() for p in region.parameters if p in named):
                    return region.name
                run(slots)
                outputs = [slots[self._linked.slot(v)] for v in region.outputs] if region else []
                if any(isinstance(o, Tensor) and o.is_floating_point() and not o.isfinite().all() for o in outputs):
                    return task.subject
        return None

    def _repr_html_(self) -> str:
        """The program as notebooks show it: its plan, and how many synapses learn."""
        from reclra_compile.view.notebook import to_notebook

        learned = sum(p.numel() for p in self.synapse_parameters())
        return to_notebook(self.plan, (("learned synapses", f"{learned:,}"),))

    def __repr__(self) -> str:
        learned = sum(p.numel() for p in self.synapse_parameters())
        return (
            f"Program({self.plan.model} × {self.plan.name}: {len(self.plan.regions)} regions, "
            f"{len(self.plan.pathways)} pathways, {len(self.plan.waves)} waves, {learned:,} learned synapses)"
        )
