"""A plan for several devices in one process: a thread for each device, without torch.distributed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from reclra_compile.distributed.local import LocalMesh, Meeting
from reclra_compile.distributed.program import RankProgram
from reclra_compile.distributed.wire import WireError
from reclra_compile.errors import Fault, PlanError, RankError
from reclra_compile.ir import Plan
from reclra_compile.runtime.discrepancy import Discrepancy
from reclra_compile.runtime.recorder import Recorders

Make = Callable[[LocalMesh], RankProgram]
R = TypeVar("R")


class ThreadedProgram:
    """Executes a plan's devices side by side, each by a thread and on a torch device of its own.

    `loss = program.step(x, y)` fills `.grad` of model and synapses, which lie on the devices of their regions; batches
    may be on any device. It has of Program what a loop needs: step, predict, parameters, zero_grad, discrepancy, state.
    """

    def __init__(self, plan: Plan, model: nn.Module, on: Sequence[torch.device], make: Make) -> None:
        """`make` gives the program of one stage."""
        if len(on) != len(plan.devices):
            raise RankError(
                Fault("R102", f"the plan is for {len(plan.devices)} devices, and {len(on)} are named",
                      fix="name one torch device for each of the plan's")
            )  # fmt: skip
        self.plan, self.model = plan, model
        self._meeting = Meeting(len(on))
        self.stages = [make(LocalMesh(k, len(on), device, self._meeting)) for k, device in enumerate(on)]
        self.synapses = nn.ModuleList(stage.synapses for stage in self.stages)
        self._threads = ThreadPoolExecutor(len(on), thread_name_prefix="stage")

    def step(self, *batch: Any) -> Tensor:
        """Forward pass and schedule on `*inputs, target`; returns the loss (a detached scalar) as Program does."""
        losses = self._each(lambda stage: stage.step(*self._near(stage, batch)), self.stages[0].own_streams)
        home = losses[0].device
        return torch.stack([loss.to(home) for loss in losses]).sum()

    def predict(self, *inputs: Any) -> Tensor:
        """The model's output in its mode, train or eval, without a graph."""
        draws = self.model.training and self.stages[0].own_streams
        outputs = self._each(lambda stage: stage.predict(*self._near(stage, inputs)), draws)
        return next(o for o in outputs if o is not None)

    @property
    def discrepancy(self) -> Discrepancy:
        """D(Θ) of the last step; raises TrainingError (T004) before the first."""
        found = [stage.discrepancy for stage in self.stages]
        return Discrepancy(sum(d.total for d in found), {name: v for d in found for name, v in d.regions.items()})

    def parameters(self) -> Iterator[nn.Parameter]:
        """Everything that learns: the model's parameters, then the error synapses."""
        yield from self.model.parameters()
        yield from (p for p in self.synapses.parameters() if p.requires_grad)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear `.grad` of the model and of the synapses."""
        self.model.zero_grad(set_to_none)
        self.synapses.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The synapses' state by stage, and the plan's fingerprint; the model saves itself."""
        return {"fingerprint": self.plan.fingerprint, "stages": [stage.state_dict() for stage in self.stages]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the synapses; raises PlanError (P011) for another model's, wiring's or placement's state."""
        stages = state.get("stages")
        if not isinstance(stages, list) or len(stages) != len(self.stages):
            raise PlanError(Fault("P011", "these synapses belong to another number of devices",
                                  fix="load the matching checkpoint"))  # fmt: skip
        for stage, found in zip(self.stages, stages, strict=True):
            stage.load_state_dict(found)

    @contextlib.contextmanager
    def recording(self) -> Iterator[Recorders]:
        """`with program.recording() as recorder:` keeps when the tasks of steps run on each device."""
        with contextlib.ExitStack() as stack:
            each = [stack.enter_context(stage.recording()) for stage in self.stages]
            yield Recorders(self.plan, each)

    def _repr_html_(self) -> str:
        from reclra_compile.view.notebook import to_notebook

        return to_notebook(self.plan)

    def close(self) -> None:
        """End the threads; the model keeps what it has learned."""
        self._threads.shutdown()

    def _near(self, stage: RankProgram, batch: Iterable[Any]) -> tuple[Any, ...]:
        device = stage.peers.device
        return tuple(tree_map(lambda v: v.to(device) if isinstance(v, Tensor) else v, tuple(batch)))

    def _each(self, work: Callable[[RankProgram], R], draws: bool) -> list[R]:
        """What each stage's thread makes of it; raises the first error, not those of threads that waited for it."""
        seed = int(torch.randint(2**40, ())) if draws else 0
        self._meeting.begin()
        kinds = (kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind))
        autocast = [(kind, torch.get_autocast_dtype(kind)) for kind in kinds]

        def run(stage: RankProgram) -> R:
            stage.given_seed = seed
            with contextlib.ExitStack() as stack:
                for kind, dtype in autocast:
                    stack.enter_context(torch.autocast(kind, dtype))
                if stage.peers.device.type == "cuda":
                    stack.enter_context(torch.cuda.device(stage.peers.device))
                try:
                    return work(stage)
                except BaseException:
                    self._meeting.fail()
                    raise

        under_way = [self._threads.submit(run, stage) for stage in self.stages]
        wait(under_way)
        errors = [e for f in under_way if (e := f.exception()) is not None]
        if errors:
            raise next((e for e in errors if not _followed(e)), errors[0])
        return [f.result() for f in under_way]


def _followed(error: BaseException) -> bool:
    """True for the error of a thread that waited for another."""
    return isinstance(error, WireError) or (isinstance(error, RankError) and error.faults[0].code == "R105")
