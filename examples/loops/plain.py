"""A plain training loop.

    python examples/loops/plain.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from digits import batches, error, images, network
from torch import nn

import reclra_compile as rc


def main(epochs: int = 10, steps: int | None = None, wiring: str = "depth1", reduction: str = "mean") -> nn.Module:
    """Train on the digits and return the model; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = network()
    model = rc.attach(model, images()[:32], wiring)  # the one line
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y, reduction=reduction)
            loss.backward()
            optimizer.step()
    print(f"test error {error(model):.2f} %")
    return model


if __name__ == "__main__":
    main()
