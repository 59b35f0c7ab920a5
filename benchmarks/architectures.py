"""Step time of convolutional and transformer networks, compiled with several wirings, beside autograd's backprop.

    python benchmarks/architectures.py [--rounds 5] [--threads 1] [--only resnet gpt vit]

Contenders run in this process, in turn; a ratio is the median over rounds of the ratio within a round. The
bound is the cost model's FLOP ratio. A step is zero_grad, forward, errors, gradients; no optimizer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

import reclra_compile as rc
from reclra_compile.frontend.load_model import Loaded, load_model

EXAMPLES = Path(__file__).parent.parent / "examples"
CASES = (
    # name, file, builder, batch, wiring, granularity
    ("resnet", "resnet_cifar.py", "conv", 64, "blocks", None),
    ("resnet", "resnet_cifar.py", "conv", 64, "groups", "groups=3"),
    ("resnet", "resnet_cifar.py", "conv", 64, "depth1", None),
    ("resnet", "resnet_cifar.py", "conv", 64, "depth1_local", None),
    ("resnet", "resnet_cifar.py", "conv", 64, "backprop", "block"),
    ("gpt", "gpt.py", "build_model", 16, "blocks", None),
    ("gpt", "gpt.py", "build_model", 16, "groups", None),
    ("gpt", "gpt.py", "build_model", 16, "backprop", "block"),
    ("vit", "vit.py", "cifar10", 32, "blocks", None),
    ("vit", "vit.py", "cifar10", 32, "groups", None),
    ("vit", "vit.py", "cifar10", 32, "depth1", None),
    ("vit", "vit.py", "cifar10", 32, "backprop", None),
)


def timed(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


Batch = tuple[torch.Tensor, torch.Tensor, Callable[..., torch.Tensor]]


def batch_for(name: str, loaded: Loaded, size: int) -> Batch:
    """Inputs, targets and loss of a case."""
    if name == "gpt":
        tokens = torch.randint(0, 90, (size, loaded.extra("LENGTH")))
        return tokens, tokens.roll(-1, 1), loaded.extra("loss_fn")
    return torch.randn(size, 3, 32, 32), torch.randint(0, 10, (size,)), F.cross_entropy


def compare(name: str, file: str, builder: str, size: int, wiring: str, granularity: str | None, rounds: int) -> None:
    """Print one line: measured ratio beside the bound."""
    loaded, other = (load_model(str(EXAMPLES / f"{file}:{builder}")) for _ in range(2))
    x, y, loss_fn = batch_for(name, loaded, size)
    program = rc.compile(loaded.model, x, wiring, granularity=granularity, loss_fn=loss_fn, reduction="mean")
    twin = other.model

    def ours() -> None:
        program.zero_grad()
        program.step(x, y)

    def autograd() -> None:
        twin.zero_grad()
        loss_fn(twin(x), y).backward()

    for run in (ours, autograd, ours, autograd):
        run()
    pairs = [(timed(ours), timed(autograd)) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    times = [statistics.median(p[k] for p in pairs) * 1e3 for k in (0, 1)]
    cost = program.plan.cost
    label = f"{name} {builder} × {wiring}{f' {granularity}' if granularity else ''}, batch {size}"
    kept = f"{cost.saved_bytes / 2**20:.1f} of {cost.backprop_saved_bytes / 2**20:.1f} MiB"
    print(f"{label:<48} {ratio:6.3f}   bound {cost.ratio:.3f}   {times[0]:7.1f} and {times[1]:7.1f} ms   kept {kept}",
          flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=["resnet", "gpt", "vit"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("step time ÷ autograd's (median of pairs), the bound, both times, bytes kept inside regions as planned")
    for case in CASES:
        if case[0] in options.only:
            compare(*case, rounds=options.rounds)


if __name__ == "__main__":
    main()
