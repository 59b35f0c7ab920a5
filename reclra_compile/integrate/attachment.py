"""What hangs on an attached model: its program, its synapses, and how the loop's gradient is read."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from reclra_compile.errors import Fault, Notice, TrainingError, UserError
from reclra_compile.frontend.example import Example, example_of, with_batch
from reclra_compile.integrate.backward import Pass
from reclra_compile.integrate.classes import own_forward, plain
from reclra_compile.integrate.inputs import Inputs
from reclra_compile.integrate.labels import Reading
from reclra_compile.integrate.linking import LinkedModel, Settings
from reclra_compile.integrate.program import AttachedProgram
from reclra_compile.integrate.reader import Reader
from reclra_compile.integrate.results import Results, results_of
from reclra_compile.ir import Plan
from reclra_compile.planning import Unreached, WiringSource
from reclra_compile.runtime.halves import reads_labels
from reclra_compile.runtime.learned import restore

LossScale = float | Callable[[], float] | None


class Attachment:
    """`model.reclra`: the program that runs in an attached model, and the settings that a loop may change.

    `loss_scale`: what the loop multiplies the loss with, a number or a function without arguments; None: found out.
    `save_synapses`: whether `model.state_dict()` has the synapses.
    """

    def __init__(
        self, model: nn.Module, example: Example, results: Results, settings: Settings, plan: Plan, synapses: nn.Module,
        loss_scale: LossScale = None, save_synapses: bool = False,
    ) -> None:  # fmt: skip
        self._model, self._example, self._results, self._settings = model, example, results, settings
        self.plan, self.synapses = plan, synapses
        self.loss_scale, self.save_synapses = loss_scale, save_synapses
        self._inputs = Inputs(type(model).forward.__get__(model), example)
        self._reader = Reader(results, settings.loss_fn, settings.reduction, reads_labels(plan.tasks))
        self._made: LinkedModel | None = None
        self._handed: tuple[Any] | None = None
        self._warned = False

    @classmethod
    def new(
        cls, model: nn.Module, example_inputs: Any, settings: Settings, plan: Plan | None, wiring: WiringSource | None,
        granularity: str | None, unreached: Unreached, loss_scale: LossScale, save_synapses: bool,
    ) -> Attachment:  # fmt: skip
        """For a model that has its own class yet."""
        example = example_of(model, example_inputs)
        results = results_of(model, example, settings.output)
        made = LinkedModel(model, example_inputs, settings, plan, wiring, granularity, unreached)
        example = with_batch(example, 2) if made.any_batch and len(example.tensors[0]) > 2 else example
        self = cls(model, example, results, settings, made.program.plan, made.synapses, loss_scale, save_synapses)
        self._made = made
        return self

    @property
    def _linked(self) -> LinkedModel:
        if self._made is None:  # a copy links itself when it is first trained
            example = self._example
            given = example.named if example.named else example.args
            with plain(self._model), own_forward(self._model):
                self._made = LinkedModel(self._model, given, self._settings, self.plan, synapses=self.synapses)
        return self._made

    @property
    def program(self) -> AttachedProgram:
        """The program; `program.step(x, y)` works too."""
        return self._linked.program

    def forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the model's forward() returns, with a graph that ends in the schedule."""
        made = self._linked
        inputs = self._inputs.of(args, kwargs)
        outputs = Pass(made.halves, made.borrowed, self._results, self._read, made.deep).run(inputs)
        return self._results.whole.filled(outputs)

    def labels(self, y: Any) -> None:
        """Hand over the labels of the forward pass whose backward pass comes next: no factor need then be found out.

        `y` is what `loss_fn(output, y)` takes. Call it before `loss.backward()`; it counts once. Raises UserError
        (A004) for a model with several outputs.
        """
        if len(self._results.names) > 1:
            message = f"the model has several outputs ({', '.join(self._results.names)}), and labels are of one"
            raise UserError(Fault("A004", message, fix="attach with output=…, or let labels be found out"))
        self._handed = (y,)

    def _read(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Reading:
        handed, self._handed = self._handed, None
        scale = self.loss_scale() if callable(self.loss_scale) else self.loss_scale
        if handed is not None:
            reading = self._reader.by_labels(outputs[0], gradients[0], handed[0])
        else:
            reading = self._reader.read(outputs, gradients, scale)
        if reading.doubt and not self._warned:
            self._warned = True
            fix = (
                "say what the loop multiplies the loss with: attach(…, loss_scale=…), or which loss it is: loss_fn=…, "
                "or call model.reclra.labels(y) before loss.backward()"
            )
            said = Notice(reading.doubt, "A010")
            warnings.warn(f"{said}\n  fix: {fix}", stacklevel=2)
        return reading

    def state_dict(self) -> dict[str, Any]:
        """The synapses' state and the plan's fingerprint, as `Program.state_dict`."""
        return {"fingerprint": self.plan.fingerprint, "synapses": self.synapses.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the synapses; raises PlanError (P011) for another model's or wiring's state."""
        restore(self.synapses, state, self.plan)

    def load_synapses(self, held: Mapping[str, Any], faults: list[str]) -> None:
        """Load synapses that a model's checkpoint has; what does not fit is added to `faults`, as torch does."""
        try:
            self.synapses.load_state_dict(dict(held))
        except RuntimeError as error:
            faults.append(str(error))

    def refuse_replicas(self) -> None:
        """Raise TrainingError (A007): threads that share one set of regions would mix up their values."""
        raise TrainingError(
            Fault("A007", "DataParallel copies an attached model to each device in every step",
                  fix="use torch.nn.parallel.DistributedDataParallel")
        )  # fmt: skip

    def copied(self, model: nn.Module, memo: dict[int, Any]) -> Attachment:
        """The same for a copy of the model, with synapses of its own."""
        return Saved(
            self._example, self._results, self._settings, self.plan, copy.deepcopy(self.synapses, memo),
            self.loss_scale, self.save_synapses,
        ).onto(model)  # fmt: skip

    def saved(self) -> Saved:
        """All of it but the model, to be pickled: the plan as its text."""
        return Saved(
            self._example, self._results, self._settings, str(self.plan), self.synapses, self.loss_scale,
            self.save_synapses,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Attachment({self.plan.model} × {self.plan.name})"


@dataclass(frozen=True)
class Saved:
    """What is attached, without the model."""

    example: Example
    results: Results
    settings: Settings
    plan: Plan | str
    synapses: nn.Module
    loss_scale: LossScale
    save_synapses: bool

    def onto(self, model: nn.Module) -> Attachment:
        """The attachment for `model`, which has its own class yet."""
        plan = Plan.parse(self.plan) if isinstance(self.plan, str) else self.plan
        return Attachment(
            model, self.example, self.results, self.settings, plan, self.synapses, self.loss_scale, self.save_synapses
        )
