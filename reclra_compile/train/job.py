"""A training job: one model, one or more wirings, one or more seeds, the same data and budget for all."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reclra_compile.compiler import WiringSource, compile
from reclra_compile.data.sets import DataSet
from reclra_compile.errors import DataError, Fault, TrainingError
from reclra_compile.files import write_text
from reclra_compile.frontend.load_model import Loaded, load_model
from reclra_compile.ir import Plan, Training
from reclra_compile.train import checkpoint
from reclra_compile.train.loop import Epoch, Run, Split, with_flags

OnEpoch = Callable[["Member", Epoch], None]
OnStep = Callable[["Member", Run], None]


@dataclass(frozen=True)
class Member:
    """One run of a job: a wiring, a seed, and where it keeps its files (None: nowhere)."""

    label: str
    wiring: WiringSource | None
    plan: Plan | None
    seed: int
    folder: Path | None


@dataclass(frozen=True)
class Result:
    """What a run came to: its plan, its settings and its epochs."""

    member: Member
    plan: Plan
    settings: Training
    history: tuple[Epoch, ...]

    @property
    def test_error(self) -> float:
        """Test error in percent after the last epoch."""
        last = self.history[-1].test_error if self.history else None
        return float("nan") if last is None else last


@dataclass(frozen=True)
class Job:
    """The model, the data and the flags that all runs share."""

    model: str
    data: DataSet
    flags: dict[str, float | int | str | None]
    resume: bool = False
    device: str = "cpu"

    def run(self, member: Member, on_epoch: OnEpoch, on_step: OnStep | None = None) -> Result:
        """Train one member from fresh weights drawn with its seed; saves after every epoch."""
        torch.manual_seed(member.seed)
        loaded = load_model(self.model)
        loaded.model.to(self.device)
        inputs = tuple(x.to(self.device) for x in loaded.inputs)
        program = compile(loaded.model, inputs, member.wiring, plan=member.plan, seed=member.seed)
        settings = with_flags(program.plan.training, **self.flags)
        train, valid, test = (self._split(loaded, part) for part in ("train", "valid", "test"))
        self._check_classes(program.plan)
        run = Run(program, train, settings, valid=valid, test=test, seed=member.seed)
        if on_step is not None:
            run.on_step = lambda epoch, k: on_step(member, run)
        history = self._start(member, run)
        try:
            for epoch in run:
                history.append(epoch)
                self._keep(member, run, history)
                on_epoch(member, epoch)
        except TrainingError as error:
            raise self._with_checkpoint(error, member, history) from error
        return Result(member, program.plan, settings, tuple(history))

    def _split(self, loaded: Loaded, part: str) -> Split:
        x, y = self.data.as_tensors(part, tuple(loaded.inputs[0].shape[1:]))  # type: ignore[arg-type]
        return x.to(self.device), y.to(self.device)

    def _check_classes(self, plan: Plan) -> None:
        if len(plan.inputs) != 1:
            raise DataError(
                Fault("D020", f"the model takes {len(plan.inputs)} inputs; the data sets have one",
                      fix="train it in your own loop with rc.compile(…).step(*inputs, target)")  # fmt: skip
            )
        shape = next(r.shape for r in plan.regions if plan.output in r.outputs)
        if len(shape) != 1 or shape[0] < self.data.classes:
            raise DataError(
                Fault("D021", f"the model's output is {shape} per sample; {self.data.name} has "
                      f"{self.data.classes} classes", fix=f"end the model in {self.data.classes} logits")  # fmt: skip
            )

    def _start(self, member: Member, run: Run) -> list[Epoch]:
        if member.folder is None:
            return []
        member.folder.mkdir(parents=True, exist_ok=True)
        write_text(member.folder / "plan.txt", str(run.program.plan))
        saved = member.folder / "checkpoint.pt"
        return checkpoint.resume(saved, run) if self.resume and saved.exists() else []

    def _keep(self, member: Member, run: Run, history: list[Epoch]) -> None:
        if member.folder is not None:
            write_text(member.folder / "log.jsonl", "".join(json.dumps(e.as_json()) + "\n" for e in history))
            checkpoint.save(member.folder / "checkpoint.pt", run, history)

    def _with_checkpoint(self, error: TrainingError, member: Member, history: list[Epoch]) -> TrainingError:
        if member.folder is None or not history:
            return error
        kept = f"the weights after epoch {history[-1].epoch} are kept in {member.folder / 'checkpoint.pt'}"
        return TrainingError(replace(f, fix=f"{f.fix}; {kept}") for f in error.faults)


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    listed = list(values)
    return statistics.fmean(listed), statistics.stdev(listed) if len(listed) > 1 else 0.0
