"""The training loop of `reclra-compile train`: one loop for every wiring.

A run is a pure function of model, wiring, data, settings and seed; stopped between epochs it resumes
from its checkpoint with the same result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from reclra_compile.data.sets import batches
from reclra_compile.errors import Fault, TrainingError
from reclra_compile.ir import Training
from reclra_compile.runtime.program import Program
from reclra_compile.train.measure import Forward, Measure, Split, error_percent, mean_loss

OnStep = Callable[[int, int], None]
#: a part of the data whose one input may stand alone
AnySplit = tuple[Tensor | tuple[Tensor, ...], Tensor]


@dataclass(frozen=True)
class Epoch:
    """What is known after one epoch; errors in percent (or losses, by the run's measure), `seconds` from the start."""

    epoch: int
    loss: float
    train_error: float
    valid_error: float | None
    test_error: float | None
    discrepancy: float
    lr: float
    seconds: float
    synapse_norm: float

    def as_json(self) -> dict[str, float | int | None]:
        """The record as it is written to a log."""
        return asdict(self)


def optimizer_for(program: Program, settings: Training) -> torch.optim.Optimizer:
    """The named optimizer over model and synapses: one rate and decay for both (E8), but for read-outs,
    whose rate is `readout_rate` times it. Each group keeps its factor under "scale".
    """
    readouts = list(program.readout_parameters())
    taken = {id(p) for p in readouts}
    groups: list[dict[str, Any]] = [{"params": [p for p in program.parameters() if id(p) not in taken], "scale": 1.0}]
    if readouts:
        groups.append({"params": readouts, "scale": settings.readout_rate})
    lr, decay = settings.lr, settings.weight_decay
    # fused: one pass over the parameters instead of a dozen; 7 times faster than foreach on a CPU
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr, momentum=0.9, weight_decay=decay, fused=True)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr, betas=(0.9, settings.beta2), weight_decay=decay, fused=True)


def warmup_share(settings: Training) -> float:
    """The share of the run over which the rate rises; raises TrainingError (T026) where nothing is left after it."""
    if settings.warmup < 1:
        return settings.warmup
    if settings.warmup < settings.epochs:
        return settings.warmup / settings.epochs
    raise TrainingError(
        Fault("T026", f"the warm-up takes {settings.warmup:g} epochs, the run has {settings.epochs}",
              fix="train for more epochs, or give --warmup as a share of the run, below 1")
    )


def rate(settings: Training, progress: float) -> float:
    """Factor on the learning rate at `progress` in [0, 1] of the run: warm-up, then the schedule.

    Polynomial: lr_end + (lr - lr_end) (1 - t)^power, over lr, with t the progress since the warm-up.
    """
    share = warmup_share(settings)
    if progress < share:
        return progress / share
    if settings.schedule == "polynomial":
        end = settings.lr_end / settings.lr
        left = max(1.0 - (progress - share) / (1.0 - share), 0.0)  # rounding may leave it below 0
        return end + (1.0 - end) * math.pow(left, settings.power)
    if settings.schedule == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else 1.0


def _several(split: AnySplit) -> Split:
    x, y = split
    return (x,) if isinstance(x, Tensor) else x, y


class Run:
    """One training run; iterate it to train epoch by epoch."""

    def __init__(
        self,
        program: Program,
        train: AnySplit,
        settings: Training,
        *,
        valid: AnySplit | None = None,
        test: AnySplit | None = None,
        seed: int = 0,
        on_step: OnStep | None = None,
        measure: Measure = "error",
        forward: Forward | None = None,
    ) -> None:
        """`measure`: "error", in percent, or "loss" where the targets are not classes.

        `forward` gives the model's output from its inputs, where they are not positional.
        """
        warmup_share(settings)
        self.program, self.settings, self.on_step = program, settings, on_step
        self.train, self.measure = _several(train), measure
        self.valid, self.test = (_several(part) if part else None for part in (valid, test))
        self._forward = forward or (lambda inputs: program.output_of(program.model(*inputs)))
        self.optimizer = optimizer_for(program, settings)
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 0
        self.seconds = 0.0
        self.steps = math.ceil(len(train[1]) / settings.batch_size)

    def __iter__(self) -> Iterator[Epoch]:
        while self.epoch < self.settings.epochs:
            yield self.one_epoch()

    def one_epoch(self) -> Epoch:
        """Train one epoch and evaluate; raises TrainingError (T010) where loss or weights stop being finite."""
        started = time.perf_counter()
        self.program.model.train()
        inputs, y = self.train
        losses = 0.0
        order = batches(len(y), self.settings.batch_size, generator=self.generator, drop_last=False)
        for k, index in enumerate(order):
            losses += self._step(tuple(x[index] for x in inputs), y[index], self.epoch * self.steps + k)
            if self.on_step is not None:
                self.on_step(self.epoch, k)
        if not self._finite():  # the last step's update shows in no loss of this epoch
            last = tuple(x[index] for x in inputs)
            raise TrainingError(self._diverged(last, (self.epoch + 1) * self.steps - 1, "a weight"))
        self.epoch += 1
        self.seconds += time.perf_counter() - started
        sample = tuple(x[:10_000] for x in inputs), y[:10_000]
        return Epoch(
            epoch=self.epoch,
            loss=losses / self.steps,
            train_error=self.measured(sample),
            valid_error=self.measured(self.valid) if self.valid and len(self.valid[1]) else None,
            test_error=self.measured(self.test) if self.test else None,
            discrepancy=self.program.discrepancy.total,
            lr=self.optimizer.param_groups[0]["lr"],
            seconds=self.seconds,
            synapse_norm=sum(float(p.detach().square().sum()) for p in self.program.synapses.parameters()) ** 0.5,
        )

    def measured(self, split: Split) -> float:
        """The error in percent, or the loss, of the weights as they are now on a part of the data."""
        measured = error_percent if self.measure == "error" else mean_loss
        return measured(self.program.model, self._forward, split, self.program.loss_fn)

    def _step(self, inputs: tuple[Tensor, ...], y: Tensor, step: int) -> float:
        factor = rate(self.settings, step / (self.steps * self.settings.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * factor * group["scale"]
        self.optimizer.zero_grad()
        loss = float(self.program.step(*inputs, y))
        if not math.isfinite(loss):
            raise TrainingError(self._diverged(inputs, step, "the loss"))
        if self.settings.clip:
            nn.utils.clip_grad_norm_(list(self.program.parameters()), self.settings.clip)
        self.optimizer.step()
        return loss

    def _finite(self) -> bool:
        return all(bool(p.isfinite().all()) for p in self.program.parameters())

    def _diverged(self, inputs: tuple[Tensor, ...], step: int, what: str) -> Fault:
        region = self.program.first_non_finite(*inputs)
        first = f"the first region that is not finite is '{region}'"
        if region is None:
            named = self.program.synapses.named_parameters()
            broken = [name for name, p in named if not p.isfinite().all()]
            first = "all regions are finite" + (f", the error synapses '{broken[0]}' are not" if broken else "")
        return Fault(
            "T010",
            f"{what} is not finite after step {step + 1} (epoch {self.epoch + 1}); {first}",
            fix="lower --lr, limit the gradient with --clip 1, or use --optimizer adamw",
        )


def with_flags(training: Training, **flags: float | int | str | None) -> Training:
    """The wiring's settings with the flags that were given."""
    return replace(training, **{k: v for k, v in flags.items() if v is not None})  # type: ignore[arg-type]
