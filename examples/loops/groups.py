"""Parameter groups with learning rates of their own, and a layer that is frozen.

    python examples/loops/groups.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from digits import batches, error, images, network
from torch import nn

import reclra_compile as rc


def main(epochs: int = 10, steps: int | None = None, wiring: str = "depth1") -> nn.Module:
    """Train on the digits with the first layer frozen and return the model; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = network()
    model[0].requires_grad_(False)
    model = rc.attach(model, images()[:32], wiring)  # the one line
    learning = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in learning if p.ndim > 1], [p for p in learning if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "lr": 2e-3, "weight_decay": 0.1}, {"params": vectors, "lr": 4e-3, "weight_decay": 0.0}]
    )
    for _ in range(epochs):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
    print(f"test error {error(model):.2f} %")
    return model


if __name__ == "__main__":
    main()
