"""The training loop of `reclra-compile train`: one loop for every wiring, for one process and for ranks.

A run is a pure function of model, wiring, data, settings and seed; stopped after any step it resumes
from its checkpoint with the same result. Ranks run the same loop on the same batches, and sum what they
know where an epoch ends.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from reclra_compile.data.augment import Augmentation
from reclra_compile.data.sets import batches
from reclra_compile.errors import Fault, TrainingError
from reclra_compile.ir import Training
from reclra_compile.runtime.program import Program
from reclra_compile.train.agree import agree
from reclra_compile.train.feed import Input, feed
from reclra_compile.train.measure import Forward, Measure, Split, errors_percent, mean_loss
from reclra_compile.train.steps import Live

OnStep = Callable[[int, int], None]
#: a part of the data whose one input may stand alone
AnySplit = tuple[Input | tuple[Input, ...], Tensor]


@dataclass(frozen=True)
class Epoch:
    """What is known after one epoch; errors in percent (or losses, by the run's measure), `seconds` from the start.

    `regions` is each region's term of the last step's `discrepancy`, output first.
    """

    epoch: int
    loss: float
    train_error: float
    valid_error: float | None
    test_error: float | None
    discrepancy: float
    lr: float
    seconds: float
    synapse_norm: float
    test_top5_error: float | None = None
    regions: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The record as it is written to a log."""
        return asdict(self)


def optimizer_for(program: Program, settings: Training) -> torch.optim.Optimizer:
    """The named optimizer over model and synapses: one rate and decay for both (E8), but for synapses whose rate
    is a setting's multiple of it, read-outs among them. Each group keeps its factor under "scale".
    """
    rated = program.rated_parameters()
    taken = {id(p) for parameters in rated.values() for p in parameters}
    groups: list[dict[str, Any]] = [{"params": [p for p in program.parameters() if id(p) not in taken], "scale": 1.0}]
    for setting, parameters in rated.items():
        groups.append({"params": parameters, "scale": getattr(settings, setting)})
        if setting == "mirror_rate":  # mirror mode has a decay of its own (E12), which fits its noise
            groups[-1]["weight_decay"] = 0.0
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
    return x if isinstance(x, tuple) else (x,), y


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
        augment: Augmentation | None = None,
        top5: bool = False,
    ) -> None:
        """`measure`: "error", in percent, or "loss" where the targets are not classes; `top5`: the error among 5 too.

        `forward` gives the model's output from its inputs, where they are not positional; `augment` changes the
        inputs of each batch that is trained on, with random numbers of the generator it gets.
        """
        warmup_share(settings)
        self.program, self.settings, self.on_step = program, settings, on_step
        self.train, self.measure, self.augment, self.top5 = _several(train), measure, augment, top5
        self.valid, self.test = (_several(part) if part else None for part in (valid, test))
        self._forward = forward or (lambda inputs: program.predict(*inputs))
        self.optimizer = optimizer_for(program, settings)
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 0
        self.done = 0  #: steps in the epoch that is being trained
        self.losses = 0.0  #: their losses, of which each rank has its part
        self.begun = self.generator.get_state()  #: with which that epoch began
        self.seconds = 0.0
        self.steps = math.ceil(len(train[1]) / settings.batch_size)
        self.last = 0.0  #: the last step's loss, of which each rank has its part
        self.live: Live | None = None  #: what a view shows within the epoch; of ranks, what the first one has heard
        self.kept = ""  #: what the newest checkpoint holds, in words
        self._since = time.perf_counter()
        self._batch: tuple[Tensor, ...] = ()

    def __iter__(self) -> Iterator[Epoch]:
        while self.epoch < self.settings.epochs:
            yield self.one_epoch()

    def one_epoch(self) -> Epoch:
        """Train one epoch, or what is left of it, and evaluate; raises TrainingError (T010) where loss or weights stop
        being finite.
        """
        self._since = time.perf_counter()
        self.program.model.train()
        inputs, y = self.train
        self.begun = self.generator.get_state()
        order = batches(len(y), self.settings.batch_size, generator=self.generator, drop_last=False)
        done, self._batch = self.done, ()
        unseen = done if self.augment is None else 0  # what augments a batch draws numbers, so it has to see all
        for k, (index, batch) in enumerate(feed(inputs, order, self.generator, unseen), start=unseen):
            if self.augment is not None:
                batch = self.augment(batch, self.generator)
            if k < done:
                continue
            self._batch = batch
            self.last = self._step(batch, y[index], self.taken)
            self.losses += self.last
            self.done = k + 1
            if self.on_step is not None:
                self.on_step(self.epoch, k)
        self.settle()
        lost = self.losses
        self.epoch, self.done, self.losses = self.epoch + 1, 0, 0.0
        self.begun = self.generator.get_state()
        return self._evaluated(lost, tuple(x[:10_000] for x in inputs), y[:10_000])

    def settle(self) -> None:
        """Make the run fit to be saved as it is; collective. Raises TrainingError (T010) where weights are not finite.

        The last step's update shows in no loss so far.
        """
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        broken = None if self._finite() else self._diverged(self._batch, self.taken - 1, "a weight")
        agree(self.program.peers, TrainingError(broken) if broken else None)
        self.program.settle_buffers()

    @property
    def taken(self) -> int:
        """Steps of all epochs so far."""
        return self.epoch * self.steps + self.done

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, within an epoch too."""
        return self.seconds + time.perf_counter() - self._since

    def _evaluated(self, losses: float, inputs: tuple[Input, ...], y: Tensor) -> Epoch:
        """What all ranks know together of the epoch that is done, with its errors on a sample of the training part."""
        peers = self.program.peers
        squares = sum(float(p.detach().square().sum()) for p in self.program.synapses.parameters())
        losses, squares, self.seconds = peers.total([losses, squares, self.seconds if peers.rank == 0 else 0.0])
        regions = self.discrepancies()
        tested = self._tested()
        return Epoch(
            epoch=self.epoch,
            loss=losses / self.steps,
            train_error=self.measured((inputs, y)),
            valid_error=self.measured(self.valid) if self.valid and len(self.valid[1]) else None,
            test_error=tested[0],
            discrepancy=sum(regions.values()),
            lr=self.optimizer.param_groups[0]["lr"],
            seconds=self.seconds,
            synapse_norm=squares**0.5,
            test_top5_error=tested[1],
            regions=regions,
        )

    def discrepancies(self, alone: bool = False) -> dict[str, float]:
        """Each region's term of the last step's D(Θ), output first; collective, but where `alone` asks for this
        process's part of them.
        """
        program, here = self.program, {}
        try:
            here = program.discrepancy.regions
        except TrainingError:  # a rank may have no target
            if program.peers.count == 1:
                raise
        if alone or program.peers.count == 1:
            return here
        told = [json.loads(text) for text in program.peers.gather(json.dumps(here))]
        names = [name for wave in program.plan.waves for name in wave if any(name in part for part in told)]
        return {name: sum(part.get(name, 0.0) for part in told) for name in names}

    def measured(self, split: Split) -> float:
        """The error in percent, or the loss, of the weights as they are now on a part of the data."""
        if self.measure == "error":
            return self.errors(split, (1,))[0]
        return mean_loss(self.program.model, self._forward, split, self.program.loss_fn, self.program.peers)

    def errors(self, split: Split, tops: tuple[int, ...]) -> tuple[float, ...]:
        """The error in percent where a label among the k best classes counts as right, for each k."""
        program = self.program
        return errors_percent(program.model, self._forward, split, program.loss_fn, tops, program.peers)

    def _tested(self) -> tuple[float | None, float | None]:
        """Error (or loss) and top-5 error of the test part."""
        if self.test is None:
            return None, None
        if self.top5 and self.measure == "error":
            first, five = self.errors(self.test, (1, 5))
            return first, five
        return self.measured(self.test), None

    def _step(self, inputs: tuple[Tensor, ...], y: Tensor, step: int) -> float:
        factor = rate(self.settings, step / (self.steps * self.settings.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * factor * group["scale"]
        self.optimizer.zero_grad()
        loss = float(self.program.step(*inputs, y))
        if not math.isfinite(loss):
            raise TrainingError(self._diverged(inputs, step, "the loss"))
        if self.settings.clip:
            self.program.clip(self.settings.clip)
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
