"""Time of a step by tasks, as one graph, and compiled, ÷ backprop, plain and compiled.

    python benchmarks/step_graph.py [--models mlp,wide,cnn] [--wirings backprop,depth1,depth2] [--rounds 30]
        [--threads 1] [--backend inductor] [--json]

A step is zero_grad, forward, errors and gradients; no optimizer. All run in this process, in turn; a ratio is the
median over rounds of the ratio within a round, so that a drift of the machine cancels. Compiled steps are held against
compiled backprop (torch.compile of the model, its backward pass included). The bound is the cost model's FLOP ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from step_time import mlp, ratio, rounds
from torch import Tensor, nn

import reclra_compile as rc


def cnn() -> nn.Sequential:
    """Three convolutions with BatchNorm on 3×32×32, 10 classes."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))


#: model, shape of one sample, batch
MODELS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...], int]] = {
    "mlp": (lambda: mlp(5, 256), (784,), 50),
    "wide": (lambda: mlp(4, 1024), (784,), 256),
    "cnn": (cnn, (3, 32, 32), 32),
}


def backprop(model: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """Gradients by autograd."""

    def step() -> Tensor:
        model.zero_grad()
        loss = F.cross_entropy(forward(x), y)
        loss.backward()
        return loss.detach()

    return step


def by_tasks(program: rc.Program, run: Callable[..., Tensor], x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """Gradients by the program's tasks, or by what is called like them."""

    def step() -> Tensor:
        program.zero_grad()
        return run(x, y)

    return step


def measured(name: str, wiring: str, count: int, backend: str) -> dict[str, Any]:
    """One model with one wiring: milliseconds and ratios."""
    build, shape, batch = MODELS[name]
    torch.manual_seed(0)
    x, y = torch.rand(batch, *shape), torch.randint(10, (batch,))
    plain, program = build(), rc.compile(build(), x, wiring)
    started = time.perf_counter()
    graph = program.as_step_graph(x, y)
    traced = time.perf_counter() - started
    compiled = program.compile_step(backend)
    contenders = {
        "backprop": backprop(plain, plain, x, y),
        "step": by_tasks(program, program.step, x, y),
        "graph": by_tasks(program, lambda x, y: graph(x, y)[0], x, y),
        "compiled backprop": backprop(plain, torch.compile(plain, backend=backend), x, y),
        "compiled": by_tasks(program, compiled, x, y),
    }
    started = time.perf_counter()
    contenders["compiled"]()
    compiling = time.perf_counter() - started
    contenders["compiled"]()
    started = time.perf_counter()
    contenders["step"]()
    times = rounds(contenders, count, repeats=max(1, round(0.02 / (time.perf_counter() - started))))
    return {
        "model": name, "batch": batch, "wiring": wiring, "operations": len(graph.graph.nodes),
        "trace_s": traced, "compile_s": compiling, "bound": program.plan.cost.ratio,
        "ms": {who: 1e3 * statistics.median(t) for who, t in times.items()},
        "step/backprop": ratio(times["step"], times["backprop"]),
        "graph/step": ratio(times["graph"], times["step"]),
        "compiled/step": ratio(times["compiled"], times["step"]),
        "compiled backprop/backprop": ratio(times["compiled backprop"], times["backprop"]),
        "compiled/compiled backprop": ratio(times["compiled"], times["compiled backprop"]),
    }  # fmt: skip


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--wirings", default="backprop,depth1,depth2")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    asked = [(m, w) for m in options.models.split(",") for w in options.wirings.split(",")]
    if not options.json:
        print(f"torch {torch.__version__}, {options.threads} thread(s), {options.rounds} rounds, {options.backend}; "
              "median ratio in a round; BP: backprop, c: compiled\n\n"
              f"{'model':<6}{'wiring':<10}{'BP ms':>8}{'step':>8}{'graph':>8}{'c BP':>8}{'c step':>8}"
              f"{'step÷BP':>9}{'graph÷step':>12}{'c step÷step':>13}{'c BP÷BP':>9}{'c step÷c BP':>13}{'bound':>7}"
              f"{'trace s':>9}{'compile s':>11}")  # fmt: skip
    for model, wiring in asked:
        torch.compiler.reset()
        row = measured(model, wiring, options.rounds, options.backend)
        print(json.dumps(row) if options.json else line(row), flush=True)


def line(r: dict[str, Any]) -> str:
    """One row for people."""
    ms = "".join(f"{r['ms'][who]:>8.2f}" for who in ("backprop", "step", "graph", "compiled backprop", "compiled"))
    return (f"{r['model']:<6}{r['wiring']:<10}{ms}{r['step/backprop']:>9.2f}{r['graph/step']:>12.2f}"
            f"{r['compiled/step']:>13.2f}{r['compiled backprop/backprop']:>9.2f}"
            f"{r['compiled/compiled backprop']:>13.2f}{r['bound']:>7.2f}{r['trace_s']:>9.1f}"
            f"{r['compile_s']:>11.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
