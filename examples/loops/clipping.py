"""Gradient clipping: by the norm of all, or by value.

    python examples/loops/clipping.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from digits import batches, error, images, network
from torch import nn

import reclra_compile as rc


def main(by: str = "norm", epochs: int = 10, steps: int | None = None, wiring: str = "depth1") -> nn.Module:
    """Train on the digits and return the model; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = network()
    model = rc.attach(model, images()[:32], wiring)  # the one line
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    for _ in range(epochs):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            if by == "norm":
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            else:
                nn.utils.clip_grad_value_(model.parameters(), 0.01)
            optimizer.step()
    print(f"clipped by {by}: test error {error(model):.2f} %")
    return model


if __name__ == "__main__":
    main("norm")
    main("value")
