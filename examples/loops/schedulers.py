"""Learning rate schedulers, and optimizers that are fused or update many parameters at once.

    python examples/loops/schedulers.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from digits import BATCH, TRAIN, batches, error, images, network
from torch import nn

import reclra_compile as rc


def main(kind: str = "foreach", epochs: int = 10, steps: int | None = None, wiring: str = "depth1") -> nn.Module:
    """Train on the digits with a `foreach` or `fused` AdamW and return the model; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = network()
    model = rc.attach(model, images()[:32], wiring)  # the one line
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, **{kind: True})
    total = epochs * (steps or TRAIN // BATCH)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=total)
    for _ in range(epochs):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            scheduler.step()
    print(f"{kind}: test error {error(model):.2f} %")
    return model


if __name__ == "__main__":
    main("foreach")
    main("fused")
