"""PerturbativeConv2d beside Conv2d of the same channels: time of a training step, parameters, bytes kept.

    python benchmarks/perturbative.py [--channels 64] [--size 32] [--batch 64] [--pairs 15]

The two run in one process, in turn; the ratio is the median over pairs.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from reclra_compile.layers import PerturbativeConv2d


def step(layer: nn.Module, x: torch.Tensor) -> float:
    """Seconds of one forward and backward pass, input gradient included."""
    started = time.perf_counter()
    layer(x).sum().backward()
    layer.zero_grad()
    return time.perf_counter() - started


def kept(layer: nn.Module, x: torch.Tensor) -> int:
    """Bytes that autograd keeps between the two passes, parameters not counted."""
    own = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    seen: dict[int, tuple[torch.Tensor, int]] = {}

    def note(t: torch.Tensor) -> torch.Tensor:
        seen[t.untyped_storage().data_ptr()] = (t, t.untyped_storage().nbytes())
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        layer(x)
    return sum(size for key, (_, size) in seen.items() if key not in own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=15)
    o = parser.parse_args()
    torch.set_num_threads(1)
    x = torch.randn(o.batch, o.channels, o.size, o.size, requires_grad=True)
    ours = PerturbativeConv2d(o.channels, o.channels, o.size, bias=False)
    theirs = nn.Conv2d(o.channels, o.channels, 3, padding=1, bias=False)
    for layer in (ours, theirs):
        step(layer, x)
    pairs = [(step(ours, x), step(theirs, x)) for _ in range(o.pairs)]
    count = [sum(p.numel() for p in m.parameters()) for m in (ours, theirs)]
    memory = [kept(m, x) for m in (ours, theirs)]
    fixed = sum(b.numel() * b.element_size() for b in ours.buffers())
    print(f"{o.channels} channels, {o.size}x{o.size}, batch {o.batch}: PerturbativeConv2d ÷ Conv2d 3x3")
    ms = [statistics.median(pair[k] for pair in pairs) * 1e3 for k in (0, 1)]
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"step time      {ratio:.3f}   ({ms[0]:.1f} ms and {ms[1]:.1f} ms)")
    print(f"parameters     {count[0] / count[1]:.3f}   ({count[0]:,} and {count[1]:,})")
    print(f"bytes kept     {memory[0] / memory[1]:.3f}   ({memory[0]:,} and {memory[1]:,}; noise maps {fixed:,})")


if __name__ == "__main__":
    main()
