"""DistributedDataParallel: each process takes its rows of every batch.

    torchrun --nproc-per-node 2 examples/loops/ddp.py
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from digits import batches, error, images, network
from torch.nn.parallel import DistributedDataParallel

import reclra_compile as rc


def main(
    epochs: int = 10, steps: int | None = None, wiring: str = "depth1", parts: int = 1, **options: Any
) -> DistributedDataParallel:
    """Train on the digits and return the wrapped model; an optimizer step for every `parts` batches."""
    torch.manual_seed(0)  # the same order of samples on every rank
    model = network()
    model = rc.attach(model, images()[:32], wiring)  # the one line
    model = DistributedDataParallel(model, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for _ in range(epochs):
        for k, (x, y) in enumerate(batches(limit=steps), 1):
            last = k % parts == 0
            with contextlib.nullcontext() if last else model.no_sync():
                loss = F.cross_entropy(model(x[rank::ranks]), y[rank::ranks]) / parts
                loss.backward()
            if last:
                optimizer.step()
                optimizer.zero_grad()
    if rank == 0:
        print(f"test error {error(model.module):.2f} %")
    return model


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main()
    dist.destroy_process_group()
