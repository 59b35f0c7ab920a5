"""The sweep of docs/simulate.md: an MLP in equal parts on simulated devices, without its weights.

    python benchmarks/simulate_sweep.py [--layers 64] [--width 4096] [--outputs 1000] [--microbatch 512]
        [--profile h100] [--out sweep.svg]
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from reclra_compile.compiler import plan_for
from reclra_compile.machine import Machine
from reclra_compile.simulate.findings import findings
from reclra_compile.simulate.plot import write_sweep
from reclra_compile.simulate.sweep import break_evens, points


def main() -> None:
    """Plan, sweep, draw, and print what it shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("layers", 64), ("width", 4096), ("outputs", 1000), ("microbatch", 512)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--profile", default="h100")
    parser.add_argument("--out", default="sweep.svg")
    given = parser.parse_args()
    with torch.device("meta"):
        hidden = [m for _ in range(given.layers - 1) for m in (nn.Linear(given.width, given.width), nn.Tanh())]
        model = nn.Sequential(*hidden, nn.Linear(given.width, given.outputs))
        example = torch.randn(8 * given.microbatch, given.width)
    plan = plan_for(model, example, "depth1", machine=Machine(devices=f"{given.profile}:8", microbatches=8))
    begin = time.perf_counter()
    found, even = list(points(plan)), list(break_evens(plan))
    title = (f"MLP of {given.layers} layers of {given.width:,} with {given.outputs:,} outputs, microbatches of "
             f"{given.microbatch} samples, {given.profile}")  # fmt: skip
    write_sweep(title, found, even, given.out)
    print(title)
    print("\n".join(findings(found, even)))
    print(f"{len(found)} points in {time.perf_counter() - begin:.0f} s; picture in {given.out}")


if __name__ == "__main__":
    main()
