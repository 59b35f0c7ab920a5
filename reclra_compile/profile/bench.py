"""Measure a model's tasks on this machine: rounds of real steps at a few batch sizes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from reclra_compile.arrange import arrange
from reclra_compile.auto.settings import asked_of
from reclra_compile.compiler import ExampleInputs, compile
from reclra_compile.cost.fit import Line, Sample, fitted, line_through
from reclra_compile.cost.measured import KIND, Measured, TaskTime, host, work_of
from reclra_compile.frontend.cut import survey
from reclra_compile.frontend.partition import layers
from reclra_compile.frontend.trace import trace
from reclra_compile.ir import Device
from reclra_compile.machine import Machine
from reclra_compile.placement.profiles import GPU, MEMORY_SHARE, preset
from reclra_compile.planning import WiringSource, designed, precision
from reclra_compile.profile.stand_in import rows
from reclra_compile.runtime.loss import LossFunction
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.timing import Clock, Timing
from reclra_compile.spec.divide import with_granularity
from reclra_compile.spec.load import Loaded, load_wiring
from reclra_compile.spec.schema import ScheduleSpec, Wiring

WARM_UP, ROUNDS = 3, 7
SHARES = (1, 2, 4)  #: of a batch that are timed
OnProgress = Callable[[int, int], None]


class Bench:
    """A model's programs with batches of several sizes: `round()` as often as wanted, then `measured()`.

    One program runs batches whole; another cuts each in two, as small weight updates are then run one by one. Sizes
    that the model does not take are left out. The model's buffers and gradients stay as they are between rounds.
    """

    def __init__(self, program: Program, cut: Program | None, batch: Sequence[Any], now: Clock) -> None:
        self.program, self.plan, self.count = program, program.plan, _samples(batch)
        sizes = sorted({max(1, self.count // k) for k in SHARES}, reverse=True)
        self.alone = {n: Timing(program, _first(batch, n), now) for n in sizes}
        halves = [n for n in sizes if 2 * n <= self.count] if cut is not None else []
        self.apart = {n: Timing(cut, _first(batch, 2 * n), now) for n in halves if cut is not None}

    def warm_up(self, rounds: int = WARM_UP) -> None:
        """Steps that do not count; raises what the model does where even the whole batch cannot be run."""
        with undisturbed(self.program.model):
            for timings, least in ((self.alone, self.count), (self.apart, 0)):
                for n in list(timings):
                    try:
                        timings[n].warm_up(rounds)
                    except Exception:  # fixed batches, normalisation over one sample, …: the model's own code decides
                        if n == least:
                            raise
                        del timings[n]

    def round(self) -> None:
        """One round of all sizes."""
        with undisturbed(self.program.model):
            for timing in (*self.alone.values(), *self.apart.values()):
                timing.round()

    def clear(self) -> None:
        """Forget the rounds so far."""
        for timing in (*self.alone.values(), *self.apart.values()):
            timing.clear()

    def measured(self, device: torch.device) -> Measured:
        """The times so far, and the rates that they come to."""
        alone = {n: t.task_us() for n, t in self.alone.items()}
        apart = {n: {name: us / 2 for name, us in t.task_us().items()} for n, t in self.apart.items()} or alone
        dtype = precision(self.program.model)
        tasks = [t for t in self.plan.tasks if t.kind not in "XPR"]
        samples = [
            Sample(t.flops * n / self.plan.batch, t.bytes * n / self.plan.batch, us[t.id])
            for n, us in alone.items() for t in tasks
        ]  # fmt: skip
        machine = fitted(samples, guess(device, dtype))
        found = {
            t.id: TaskTime(t.flops, t.bytes, _line(alone, t.id, machine), _line(apart, t.id, machine)) for t in tasks
        }
        return Measured(
            fingerprint=self.plan.fingerprint, work=work_of(self.plan), model=self.plan.model, wiring=self.plan.name,
            batch=self.plan.batch, samples=tuple(alone), device=machine, host=host(), processor=processor(device),
            threads=torch.get_num_threads(), torch=torch.__version__.partition("+")[0], dtype=dtype,
            step_us={n: t.step_us() for n, t in self.alone.items()}, tasks=found,
        )  # fmt: skip


def bench(
    model: nn.Module,
    inputs: ExampleInputs,
    wiring: WiringSource,
    batch: Sequence[Any],
    *,
    loss_fn: LossFunction,
    now: Clock = time.perf_counter,
    **options: Any,
) -> Bench:
    """What times `model` with `wiring` on `batch` (inputs, then target); `options` are those of `compile`."""
    chosen = explicit(model, inputs, wiring, options.pop("granularity", None), options.get("output"))
    program = compile(model, inputs, on_one_device(chosen), loss_fn=loss_fn, **options)
    cut = None
    if _samples(batch) > 1:
        plan = arrange(program.plan, (Device(),), Machine(microbatches=2))
        rest = {k: v for k, v in options.items() if k in ("output", "seed", "reduction")}
        cut = compile(model, inputs, plan=plan, loss_fn=loss_fn, **rest)
    return Bench(program, cut, batch, now)


def on_one_device(wiring: WiringSource) -> Loaded:
    """The wiring without what it says of devices and microbatches: tasks are measured one by one."""
    loaded = load_wiring(wiring)
    if not isinstance(loaded.wiring, Wiring):
        return loaded
    said = loaded.wiring.model_copy(update={"schedule": ScheduleSpec(), "placement": {}})
    return replace(loaded, wiring=said)


def explicit(
    model: nn.Module, inputs: ExampleInputs, wiring: WiringSource, granularity: str | None, output: str | int | None
) -> Loaded:
    """The wiring with its pathways: those that are chosen for the devices that its section `auto` names."""
    loaded = with_granularity(load_wiring(wiring), granularity)
    if not asked_of(loaded):
        return loaded
    ground = survey(trace(model, inputs, output))
    return designed(ground, layers(ground), loaded, Machine()).loaded


def profile(made: Bench, device: torch.device, rounds: int = ROUNDS, progress: OnProgress | None = None) -> Measured:
    """Warm up, take `rounds` rounds, and give what was measured."""
    made.warm_up()
    for k in range(rounds):
        if progress:
            progress(k, rounds)
        made.round()
    return made.measured(device)


def guess(device: torch.device, dtype: str) -> Device:
    """A device of this kind before anything is measured; its link's numbers are those of the preset, and stay."""
    known = preset(GPU if device.type in ("cuda", "mps") else "cpu", dtype)
    memory = 0
    if device.type == "cuda":
        memory = int(torch.cuda.get_device_properties(device).total_memory * MEMORY_SHARE)
    return replace(known, name=device.type, kind=KIND, memory_bytes=memory)


def processor(device: torch.device) -> str:
    """What computes: cpu, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, steps may be taken in train mode; afterwards buffers, gradients, mode and random state are as before."""
    training = {m: m.training for m in model.modules()}
    buffers = {b: b.detach().clone() for b in model.buffers()}
    grads = {p: p.grad for p in model.parameters()}
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    model.train()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        with torch.no_grad():
            for b, before in buffers.items():
                b.copy_(before)
        for p, grad in grads.items():
            p.grad = grad
        for m, mode in training.items():
            m.training = mode


def _line(times: dict[int, dict[str, float]], name: str, machine: Device) -> Line:
    return line_through({n: us[name] for n, us in times.items() if name in us}, machine.task_us)


def _samples(batch: Sequence[Any]) -> int:
    return next(len(x) for x in batch if isinstance(x, Tensor) and x.ndim)


def _first(batch: Sequence[Any], count: int) -> tuple[Any, ...]:
    return tuple(rows(x, count) if isinstance(x, Tensor) and x.ndim else x for x in batch)
