"""Step time of compiled programs ÷ autograd's backprop ÷ hand-written loops of the same equations.

    python benchmarks/step_time.py [--rounds 30] [--threads 1] [--json]

All contenders run in this process, in turn; every ratio is the median over rounds of the ratio within
a round, so that a drift of the machine cancels. The bound is the cost model's FLOP ratio. Each step is
zero_grad, forward, errors, gradients and the optimizer (SGD, the same for all).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reclra_compile as rc

BETA = 0.01
CONFIGS = ((5, 256, 50), (8, 1024, 512))
WIRINGS = ("depth1", "depth2", "backprop")


def mlp(hidden: int, width: int) -> nn.Sequential:
    """`hidden` ReLU layers of `width` units on 784 inputs, 10 classes."""
    layers: list[nn.Module] = []
    for k in range(hidden):
        layers += [nn.Linear(784 if k == 0 else width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


class HandWritten:
    """rec-LRA on an MLP as a person would write it: plain tensors, no graph, no compiler.

    `relays` are the layers (from 1) that hear the output; the others hear the next layer.
    """

    def __init__(self, model: nn.Sequential, program: rc.Program) -> None:
        linears = [m for m in model if isinstance(m, nn.Linear)]
        self.W = [m.weight.detach().clone() for m in linears]
        self.b = [m.bias.detach().clone() for m in linears]
        self.sources: dict[int, int] = {}
        self.E: dict[int, Tensor] = {}
        self.readout: dict[int, Tensor] = {}
        index = {name: k for k, name in enumerate(str(i) for i, m in enumerate(model) if isinstance(m, nn.Linear))}
        for p in program.plan.pathways:
            i, module = index[p.target], program.synapses.get_submodule(p.name)
            self.sources[i] = index[p.source]
            self.E[i] = module.E.detach().clone()  # keeps its transposed storage
            if p.update == "local_readout":
                self.readout[i] = module.b.detach().clone()
        self.parameters = [*self.W, *self.b, *self.E.values(), *self.readout.values()]
        self.optimizer = torch.optim.SGD(self.parameters, 1e-4)

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One training step; returns the loss."""
        self.optimizer.zero_grad()
        top, n = len(self.W) - 1, len(x)
        h, z = [], [x]
        for k in range(top + 1):
            h.append(torch.addmm(self.b[k], z[-1], self.W[k].t()))
            z.append(torch.relu(h[k]) if k < top else h[k])
        loss = F.cross_entropy(h[top], y)
        one_hot = F.one_hot(y, 10).to(x.dtype)
        e: dict[int, Tensor] = {top: torch.softmax(h[top], 1) - one_hot}
        c: dict[int, Tensor] = {top: e[top] / n}
        for k in range(top - 1, -1, -1):
            d = e[self.sources[k]] @ self.E[k].t()
            y_k = torch.relu(h[k] - BETA * d)
            e[k] = (z[k + 1] - y_k) / BETA
            c[k] = e[k] / n
        for k in range(top + 1):
            self.W[k].grad = c[k].t() @ z[k]
            self.b[k].grad = c[k].sum(0)
        for k, E in self.E.items():
            if k in self.readout:
                v = (torch.softmax(torch.addmm(self.readout[k], z[k + 1], E), 1) - one_hot) / n
                E.grad = (v.t() @ z[k + 1]).t()  # ten times faster than the other way round
                self.readout[k].grad = v.sum(0)
            else:
                E.grad = z[k + 1].t() @ c[self.sources[k]]
        self.optimizer.step()
        return loss


def program_step(program: rc.Program, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """The compiled program's step."""
    optimizer = torch.optim.SGD(list(program.parameters()), 1e-4)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = program.step(x, y)
        optimizer.step()
        return loss

    return step


def autograd_step(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """Plain backprop."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def rounds(contenders: dict[str, Callable[[], Tensor]], count: int, repeats: int) -> dict[str, list[float]]:
    """Seconds per step of each contender in each round; the order rotates from round to round."""
    names = list(contenders)
    times: dict[str, list[float]] = {n: [] for n in names}
    for name in names:
        for _ in range(3):
            contenders[name]()
    for k in range(count):
        shift = k % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            for _ in range(repeats):
                contenders[name]()
            times[name].append((time.perf_counter() - start) / repeats)
    return times


def ratio(a: list[float], b: list[float]) -> float:
    """Median over rounds of a ÷ b."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def run(hidden: int, width: int, batch: int, count: int) -> list[dict[str, object]]:
    """All contenders on one model; one row per wiring."""
    torch.manual_seed(0)
    x, y = torch.rand(batch, 784), torch.randint(10, (batch,))
    base = mlp(hidden, width)
    contenders = {"autograd": autograd_step(base, x, y)}
    plans = {}
    for name in WIRINGS:
        model = mlp(hidden, width)
        program = rc.compile(model, x, name)
        plans[name] = program.plan
        contenders[name] = program_step(program, x, y)
        if name != "backprop":
            hand = HandWritten(model, program)
            contenders[f"{name} by hand"] = lambda hand=hand: hand.step(x, y)
    times = rounds(contenders, count, repeats=1 if width > 500 else 20)
    rows = []
    for name in WIRINGS:
        by_hand = times.get(f"{name} by hand")
        rows.append(
            {
                "model": f"{hidden}x{width}",
                "batch": batch,
                "wiring": name,
                "program_ms": 1e3 * statistics.median(times[name]),
                "autograd_ms": 1e3 * statistics.median(times["autograd"]),
                "by_hand_ms": 1e3 * statistics.median(by_hand) if by_hand else None,
                "program/autograd": ratio(times[name], times["autograd"]),
                "by_hand/autograd": ratio(by_hand, times["autograd"]) if by_hand else None,
                "program/by_hand": ratio(times[name], by_hand) if by_hand else None,
                "bound": plans[name].cost.ratio,
            }
        )
    return rows


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for config in CONFIGS for row in run(*config, options.rounds)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"torch {torch.__version__}, {options.threads} thread(s), {options.rounds} rounds; median ratio in a round\n")
    print(f"{'model':<9}{'batch':>6}  {'wiring':<10}{'program':>10}{'autograd':>10}{'by hand':>10}"
          f"{'÷autograd':>11}{'bound':>8}{'÷by hand':>10}")  # fmt: skip
    for r in rows:
        hand = f"{r['by_hand_ms']:>7.2f} ms" if r["by_hand_ms"] else " " * 10
        over = f"{r['program/by_hand']:>10.2f}" if r["program/by_hand"] else ""
        print(f"{r['model']:<9}{r['batch']:>6}  {r['wiring']:<10}{r['program_ms']:>7.2f} ms{r['autograd_ms']:>7.2f} ms"
              f"{hand}{r['program/autograd']:>11.2f}{r['bound']:>8.3f}{over}")  # fmt: skip


if __name__ == "__main__":
    main()
