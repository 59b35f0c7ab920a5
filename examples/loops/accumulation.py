"""Gradient accumulation: one optimizer step for several batches.

    python examples/loops/accumulation.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from digits import batches, error, images, network
from torch import nn

import reclra_compile as rc

PARTS = 4


def main(epochs: int = 10, steps: int | None = None, wiring: str = "depth1") -> nn.Module:
    """Train on the digits and return the model; `steps` limits an epoch's small batches."""
    torch.manual_seed(0)
    model = network()
    model = rc.attach(model, images()[:32], wiring)  # the one line
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for k, (x, y) in enumerate(batches(16, limit=steps), 1):
            loss = F.cross_entropy(model(x), y) / PARTS
            loss.backward()
            if k % PARTS == 0:
                optimizer.step()
                optimizer.zero_grad()
    print(f"test error {error(model):.2f} %")
    return model


if __name__ == "__main__":
    main()
