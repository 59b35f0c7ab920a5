"""A training job: one model, one or more wirings, one or more seeds, the same data and budget for all."""

from __future__ import annotations

import contextlib
import functools
import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from reclra_compile.compiler import compile
from reclra_compile.data.augment import Augmentation, augmentation
from reclra_compile.data.faults import problem
from reclra_compile.data.imagefolder import ImageFolder
from reclra_compile.data.own import OwnData
from reclra_compile.data.sets import DataSet, Part
from reclra_compile.errors import DataError, Fault, Location, ReclraError, TrainingError
from reclra_compile.files import write_text
from reclra_compile.frontend.example import Example, example_of
from reclra_compile.frontend.load_model import Loaded, load_model
from reclra_compile.ir import Plan, Training
from reclra_compile.machine import Machine
from reclra_compile.planning import Unreached, WiringSource
from reclra_compile.runtime.microbatch import fewest_samples
from reclra_compile.runtime.program import Program
from reclra_compile.train import checkpoint
from reclra_compile.train.brought import brought_loss
from reclra_compile.train.checkpoint import checkpoint_of
from reclra_compile.train.loop import Epoch, Run, with_flags
from reclra_compile.train.measure import Forward, Measure, Split
from reclra_compile.train.only_run import only_run
from reclra_compile.train.replicas import check_batches

if TYPE_CHECKING:
    from reclra_compile.distributed.mesh import Mesh
    from reclra_compile.distributed.recording import Recording


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


class Watcher(Protocol):
    """Who hears of a job's progress."""

    def start(self, member: Member, run: Run, history: list[Epoch]) -> None:
        """A run begins, or goes on after the epochs of `history`."""

    def step(self, member: Member, run: Run) -> None:
        """One optimizer step is done."""

    def epoch(self, member: Member, run: Run, epoch: Epoch) -> None:
        """One epoch is done and saved."""


@dataclass(frozen=True)
class Job:
    """The model, the data and the flags that all runs share."""

    model: str
    data: DataSet | OwnData | ImageFolder
    flags: dict[str, float | int | str | None]
    resume: bool = False
    device: str = "cpu"
    measure: Measure = "error"
    granularity: str | None = None
    output: str | None = None
    unreached: Unreached = "refuse"
    blind: bool = False  #: the test part is not looked at
    augment: str = "none"
    top5: bool = False
    machine: Machine = field(default_factory=Machine)  #: what plans are made for, but those that are given
    mesh: Mesh | None = None  #: the ranks that train together, each of which runs this job with the same plan
    init: str = "build"  #: ranks build the whole model and keep their part ("build"), or draw theirs alone ("regions")
    checkpoint_every: int = 0  #: steps between checkpoints within an epoch; 0: only after every epoch

    def run(self, member: Member, watcher: Watcher) -> Result:
        """Train one member from fresh weights drawn with its seed; saves after every epoch. Ranks call it together."""
        torch.manual_seed(member.seed)
        loaded, record = self._loaded()
        program, example = self._compiled(member, loaded, record)
        settings = with_flags(program.plan.training, **self.flags)
        count = self.data.count("train")
        check_batches(count, settings.batch_size, program.peers.replicas, fewest_samples([loaded.model]))
        train, valid = (self._split(example, part) for part in ("train", "valid"))
        test = None if self.blind else self._split(example, "test")
        run = Run(
            program, train, settings, valid=valid, test=test, seed=member.seed, measure=self.measure,
            forward=self._forward(program, example), augment=self.augmentation(example), top5=self.top5,
        )  # fmt: skip
        with only_run(member.folder, program.peers):
            history = self._trained(member, run, watcher)
        return Result(member, program.plan, settings, tuple(history))

    def _trained(self, member: Member, run: Run, watcher: Watcher) -> list[Epoch]:
        history = self._start(member, run)
        watcher.start(member, run, history)
        run.on_step = lambda epoch, k: self._stepped(member, run, history, watcher)
        try:
            for epoch in run:
                history.append(epoch)
                self._keep(member, run, history)
                watcher.epoch(member, run, epoch)
        except (TrainingError, DataError) as error:
            raise type(error)(self._named(error, member, run)) from error
        return history

    def _loaded(self) -> tuple[Loaded, Recording | None]:
        """The model; of ranks that draw their own part alone, on meta, with what its constructor draws."""
        if self.mesh is None or self.init == "build":
            return load_model(self.model), None
        from reclra_compile.distributed.recording import Recording

        record = Recording()
        loaded = load_model(self.model, building=_on_meta(record))
        record.bind(loaded.model)
        return loaded, record

    def _compiled(self, member: Member, loaded: Loaded, record: Recording | None) -> tuple[Program, Example]:
        """The member's program, on its device, and the example inputs."""
        inputs: Any = loaded.inputs
        if self.mesh is None:  # ranks move what is their own
            loaded.model.to(self.device)
            inputs = loaded.inputs_on(self.device)
        example = example_of(loaded.model, inputs)
        loss_fn = brought_loss(loaded)
        if isinstance(loss_fn, nn.Module):
            loss_fn.to(self._device)
        machine = self.machine if member.plan is None and self.machine.asked else None
        with loaded.blamed():
            program = compile(
                loaded.model, inputs, member.wiring, plan=member.plan, seed=member.seed, loss_fn=loss_fn,
                granularity=self.granularity if member.plan is None else None, output=self.output,
                unreached=self.unreached, devices=machine, mesh=self.mesh, record=record,
            )  # fmt: skip
        return program, example

    @property
    def _device(self) -> str:
        return self.device if self.mesh is None else str(self.mesh.device)

    def _forward(self, program: Program, example: Example) -> Forward:
        """What evaluation runs: the model's own forward pass, or what its program makes of it."""
        if program.settles or self.mesh is not None:  # states that settle give something else; ranks have a part each
            return lambda inputs: program.predict(*inputs)

        def forward(inputs: tuple[Tensor, ...]) -> Tensor:
            args, named = example.placed(inputs)
            return program.output_of(program.model(*args, **named))

        return forward

    def fits(self, plan: Plan, loaded: Loaded) -> None:
        """Raise DataError (D010, D020, D021) where the data does not fit the model of a plan."""
        example = example_of(loaded.model, loaded.inputs)
        if isinstance(self.data, OwnData):
            for part in ("train", "valid", "test"):
                self.data.split(part, example)
            return
        if len(plan.inputs) != 1:
            raise DataError(
                Fault("D020", f"the model takes {len(plan.inputs)} inputs; the data sets have one",
                      fix="define `data` in the model's file, or train it in your own loop with rc.compile(…)")
            )
        self.data.few().split("train", example)
        shape = next(r.shape for r in plan.regions if plan.output in r.outputs)
        if len(shape) != 1 or shape[0] < self.data.classes:
            raise DataError(
                Fault("D021", f"the model's output is {shape} per sample; {self.data.name} has "
                      f"{self.data.classes} classes", fix=f"end the model in {self.data.classes} logits")
            )

    def augmentation(self, example: Example) -> Augmentation | None:
        """What becomes of the images of a batch in training; raises DataError (D015) where the data has none."""
        folder = isinstance(self.data, ImageFolder)
        if self.augment == "none" or (folder and self.augment == "resized_crop_flip"):  # as it is decoded
            return None
        if self.augment == "resized_crop_flip":
            raise problem("D015", f"--augment {self.augment} is for --data imagefolder, whose images it cuts to size",
                          "use --augment crop_flip")  # fmt: skip
        shapes = [tuple(x.shape[1:]) for x in example.tensors]
        shape = self.data.image if isinstance(self.data, DataSet) else shapes[0]
        if len(shapes) > 1 or shape is None or len(shape) != 3 or not example.tensors[0].is_floating_point():
            raise problem("D015", f"--augment {self.augment} needs one input of images, (channels, height, width)",
                          "leave --augment out, or augment in your own loop with rc.compile(…)")  # fmt: skip
        return augmentation(self.augment, (shape[0], shape[1], shape[2]))

    def reaches(self, plan: Plan) -> None:
        """Raise TrainingError (T025) where the output does not depend on some parameters, unless told what to do."""
        if plan.idle and self.unreached == "refuse":
            shown = ", ".join(plan.idle[:6]) + (f" and {len(plan.idle) - 6} more" if len(plan.idle) > 6 else "")
            raise TrainingError(
                Fault("T025", f"the model's output does not depend on {shown}, so nothing can teach them",
                      fix="use them in forward(), remove them, or leave them as they are with --unreached freeze")
            )

    def may_start(self, members: Iterable[Member]) -> None:
        """Raise TrainingError (T024) where a fresh run would replace the checkpoint of an earlier one."""
        places = [checkpoint_of(m.folder) for m in members if m.folder is not None]
        saved = [place for place in places if place.exists()]
        if saved and not self.resume:
            more = f", and {len(saved) - 1} more" if len(saved) > 1 else ""
            raise TrainingError(
                Fault("T024", f"an earlier run has left its checkpoint here{more}", Location(str(saved[0])),
                      "go on with --resume, or name another --run-dir")
            )

    def _split(self, example: Example, part: Part) -> Split:
        inputs, y = self.data.split(part, example)
        return tuple(x.to(self._device) for x in inputs), y.to(self._device)

    def _facts(self, member: Member) -> checkpoint.Facts:
        """What a resumed run has to share with the run before, beside plan and settings."""
        facts: checkpoint.Facts = {
            "data": self.data.name, "training images": self.data.count("train"),
            "validation images": self.data.count("valid"), "seed": member.seed,
            "preprocess": self.data.preprocess, "augment": self.augment,
        }  # fmt: skip
        return facts if isinstance(self.data, DataSet) else {**facts, "the data's checksum": _digest(self.data)}

    def _start(self, member: Member, run: Run) -> list[Epoch]:
        if member.folder is None:
            return []
        history = checkpoint.begin(member.folder, run, self._facts(member), self.resume)
        if run.program.peers.rank == 0:
            write_text(member.folder / "plan.txt", str(run.program.plan))
        return history

    def _stepped(self, member: Member, run: Run, history: list[Epoch], watcher: Watcher) -> None:
        """After a step: a checkpoint where one is due, but for the end of an epoch, which has its own.

        The step is told first: a log takes back what is after the checkpoint, and could not add what is before it.
        """
        watcher.step(member, run)
        due = self.checkpoint_every and run.done < run.steps and run.taken % self.checkpoint_every == 0
        if member.folder is not None and due:
            run.settle()
            checkpoint.keep(member.folder, run, history, self._facts(member))

    def _keep(self, member: Member, run: Run, history: list[Epoch]) -> None:
        if member.folder is None:
            return
        if run.program.peers.rank == 0:
            write_text(member.folder / "log.jsonl", "".join(json.dumps(e.as_json()) + "\n" for e in history))
        checkpoint.keep(member.folder, run, history, self._facts(member))

    def _named(self, error: ReclraError, member: Member, run: Run) -> list[Fault]:
        """The error's faults with the run they belong to, and with what is kept of it."""
        kept = ""
        if member.folder is not None and run.kept:
            kept = f"; the weights after {run.kept} are kept in {checkpoint_of(member.folder)}"
        name = f"{member.label}, seed {member.seed}"
        return [replace(f, message=f"{name}: {f.message}", fix=f"{f.fix}{kept}") for f in error.faults]


@functools.lru_cache(maxsize=1)
def _digest(data: OwnData | ImageFolder) -> str:
    return data.digest()  # asked for after every epoch, and the same each time


@contextlib.contextmanager
def _on_meta(record: Recording) -> Iterator[None]:
    """Inside, a model takes no memory, and `record` keeps how it gets its values."""
    with record, torch.device("meta"):
        yield


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    listed = list(values)
    return statistics.fmean(listed), statistics.stdev(listed) if len(listed) > 1 else 0.0
