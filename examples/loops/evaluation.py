"""Evaluation between epochs, and an end as soon as the error no longer falls.

    python examples/loops/evaluation.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from digits import TRAIN, batches, images, labels, network
from torch import nn

import reclra_compile as rc


@torch.no_grad()
def evaluate(model: nn.Module) -> tuple[float, float]:
    """Loss and percent of errors on the test images."""
    model.eval()
    output, y = model(images()[TRAIN:]), labels()[TRAIN:]
    model.train()
    return float(F.cross_entropy(output, y)), 100 * float((output.argmax(1) != y).double().mean())


def main(epochs: int = 10, steps: int | None = None, wiring: str = "depth1", patience: int = 3) -> nn.Module:
    """Train on the digits and return the model; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = network(normalize=True)
    model = rc.attach(model, images()[:32], wiring)  # the one line
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    best, since = float("inf"), 0
    for epoch in range(1, epochs + 1):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        tested, wrong = evaluate(model)
        print(f"epoch {epoch}: test loss {tested:.4f}, test error {wrong:.2f} %")
        best, since = (wrong, 0) if wrong < best else (best, since + 1)
        if since == patience:
            break
    return model


if __name__ == "__main__":
    main()
