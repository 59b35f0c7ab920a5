"""Predicted step time ÷ measured step time on this machine, after profiling.

    python benchmarks/prediction.py [--pairs 7] [--seconds 20] [--threads 1] [--only mlp cnn …] [--json]

A pair is: real steps, one round of profiling, real steps again; a ratio is the median over pairs, so that a drift of
the machine cancels. A step is forward, errors and gradients, without the optimizer. Beside the measured times of
tasks stand what the rates fitted to them predict, what the rates fitted to the other models' tasks predict, and what
the preset for a CPU core does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import reclra_compile as rc
from reclra_compile.arrange import arrange
from reclra_compile.cost.fit import Sample, fitted
from reclra_compile.cost.measured import Measured, time_of
from reclra_compile.frontend.load_model import load_model
from reclra_compile.ir import Device, Plan
from reclra_compile.machine import Machine
from reclra_compile.placement.estimate import Time
from reclra_compile.placement.profiles import preset
from reclra_compile.placement.times import task_us
from reclra_compile.profile.bench import Bench, bench, guess
from reclra_compile.profile.stand_in import rows, target_for

EXAMPLES = Path(__file__).parent.parent / "examples"
CASES = (
    # name, file, wiring, batch
    ("mlp", "mlp_digits.py", "depth1", 128),
    ("cnn", "cnn.py:digits", "depth1", 64),
    ("resnet", "resnet_cifar.py:conv", "blocks", 16),
    ("transformer", "gpt.py", "blocks", 16),
)
LOW, HIGH = 0.8, 1.25  #: what is to be reached
SHORT_S, MOST = 0.1, 30  #: steps are measured for so long, and so many at most


@dataclass
class Case:
    """One model with what times its tasks, and the same plan run as it is, whole and in two microbatches."""

    name: str
    wiring: str
    bench: Bench
    steps: dict[int, Callable[[], None]]
    measured: Measured | None = None

    @property
    def plan(self) -> Plan:
        """On one device, the batch as a whole."""
        return self.bench.plan


def case(name: str, file: str, wiring: str, size: int) -> Case:
    """Compile a model three times: to be timed task by task, and to be run with 1 and 2 microbatches."""
    loaded = load_model(str(EXAMPLES / file))
    loss_fn = loaded.extra("loss_fn") or F.cross_entropy
    inputs = tuple(rows(x, size) for x in loaded.tensors)
    with torch.no_grad():
        y = target_for(loaded.model(*inputs), loss_fn)
    made = bench(loaded.model, inputs, wiring, (*inputs, y), loss_fn=loss_fn)
    steps: dict[int, Callable[[], None]] = {}
    for parts in (1, 2):
        own = load_model(str(EXAMPLES / file)).model.train()
        program = rc.compile(own, inputs, wiring, loss_fn=loss_fn, devices=1, microbatches=parts)

        def step(program: rc.Program = program) -> None:
            program.zero_grad()
            program.step(*inputs, y)

        steps[parts] = step
    return Case(name, wiring, made, steps)


def seconds(step: Callable[[], None]) -> list[float]:
    """Seconds of each of some steps."""
    found: list[float] = []
    while not found or (sum(found) < SHORT_S and len(found) < MOST):
        started = time.perf_counter()
        step()
        found.append(time.perf_counter() - started)
    return found


def predicted_us(plan: Plan, device: Device, parts: int, time_us: Time) -> float:
    """The simulated step on one device."""
    return arrange(plan, (device,), Machine(microbatches=parts), time_us).simulate().makespan_us


def compare(c: Case, pairs: int, least_s: float) -> dict[str, Any]:
    """Ratios of one case, from so many pairs and more where they take less than `least_s` seconds."""
    cpu, here = preset("cpu"), torch.device("cpu")
    ratios: dict[str, list[float]] = {"measured": [], "microbatches": [], "fitted": [], "preset": []}
    steps: list[float] = []
    c.bench.warm_up()
    for step in c.steps.values():
        step()
    started = time.perf_counter()
    while len(steps) < pairs or time.perf_counter() - started < least_s:
        before = {parts: seconds(step) for parts, step in c.steps.items()}
        c.bench.clear()
        c.bench.round()
        real = {parts: statistics.median(before[parts] + seconds(step)) * 1e6 for parts, step in c.steps.items()}
        c.measured = found = c.bench.measured(here)
        steps.append(real[1])
        whole, cut = (time_of(found, c.plan, alone) for alone in (True, False))
        ratios["measured"].append(predicted_us(c.plan, found.device, 1, whole) / real[1])
        ratios["microbatches"].append(predicted_us(c.plan, found.device, 2, cut) / real[2])
        ratios["fitted"].append(predicted_us(c.plan, found.device, 1, task_us) / real[1])
        ratios["preset"].append(predicted_us(c.plan, cpu, 1, task_us) / real[1])
    return {
        "model": c.name, "wiring": c.wiring, "batch": c.plan.batch, "step_ms": statistics.median(steps) / 1e3,
        "pairs": len(steps),
        **{name: statistics.median(found) for name, found in ratios.items()},
        "low": statistics.quantiles(ratios["measured"], n=4)[0] if len(steps) > 1 else ratios["measured"][0],
        "high": statistics.quantiles(ratios["measured"], n=4)[2] if len(steps) > 1 else ratios["measured"][0],
    }  # fmt: skip


def by_others(c: Case, cases: list[Case], step_ms: float) -> float:
    """Prediction by rates fitted to the other models' tasks ÷ measurement."""
    samples = [
        Sample(t.flops, t.bytes, t.alone.us(o.plan.batch))
        for o in cases if o is not c and o.measured is not None for t in o.measured.tasks.values()
    ]  # fmt: skip
    device = fitted(samples, guess(torch.device("cpu"), "float32"))
    return predicted_us(c.plan, device, 1, task_us) / (step_ms * 1e3)


def main() -> None:
    """Parse, run, print; exits with 1 where a ratio is not within what is to be reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each model, at least")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[c[0] for c in CASES])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = [case(*c) for c in CASES if c[0] in options.only]
    results = [compare(c, options.pairs, options.seconds) for c in cases]
    for c, r in zip(cases, results, strict=True):
        r["others"] = by_others(c, cases, r["step_ms"]) if len(cases) > 1 else None
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print(f"torch {torch.__version__}, {options.threads} thread(s); predicted ÷ measured step, "
              "median of pairs (and quartiles)\n")  # fmt: skip
        print(f"{'model × wiring':<24}{'batch':>6}{'step':>11}{'pairs':>7}{'profiled':>10}{'quartiles':>13}"
              f"{'M = 2':>8}{'rates':>8}{'of others':>11}{'preset':>8}")  # fmt: skip
        for r in results:
            others = f"{r['others']:>11.2f}" if r["others"] else " " * 11
            label = f"{r['model']} × {r['wiring']}"
            print(f"{label:<24}{r['batch']:>6}{r['step_ms']:>8.2f} ms{r['pairs']:>7}{r['measured']:>10.2f}"
                  f"{r['low']:>8.2f}–{r['high']:.2f}{r['microbatches']:>8.2f}{r['fitted']:>8.2f}{others}"
                  f"{r['preset']:>8.2f}")  # fmt: skip
    missed = [r["model"] for r in results if not LOW <= r["measured"] <= HIGH]
    if missed:
        raise SystemExit(f"not within {LOW} to {HIGH}: {', '.join(missed)}")


if __name__ == "__main__":
    main()
