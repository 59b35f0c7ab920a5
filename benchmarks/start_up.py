"""How long a user waits: `reclra-compile --help` as a process, and compiling a deep model.

    python benchmarks/start_up.py [--layers 200] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

import reclra_compile as rc


def help_seconds() -> float:
    """One run of `--help` as a fresh process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "reclra_compile", "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def compile_seconds(layers: int, wiring: str) -> float:
    """Compile an MLP of `layers` linear layers of 256 units, linking included."""
    parts = [m for _ in range(layers - 1) for m in (nn.Linear(256, 256), nn.ReLU())]
    model = nn.Sequential(*parts, nn.Linear(256, 10))
    start = time.perf_counter()
    rc.compile(model, torch.randn(32, 256), wiring)
    return time.perf_counter() - start


def main() -> None:
    """Parse, run, print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    seconds = statistics.median(help_seconds() for _ in range(options.rounds))
    print(f"reclra-compile --help                    {seconds:6.2f} s")
    for wiring in ("depth1", "depth2", "backprop"):
        seconds = statistics.median(compile_seconds(options.layers, wiring) for _ in range(3))
        print(f"compile {options.layers}-layer MLP × {wiring:<10}        {seconds:6.2f} s")


if __name__ == "__main__":
    main()
