"""A model with several outputs, each with a loss of its own.

    python examples/loops/outputs.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from digits import TRAIN, batches, images, labels, network
from torch import Tensor, nn

import reclra_compile as rc


class Both(nn.Module):
    """Says which digit an image is, and draws it again from what it has made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()[:-1]
        self.digit, self.image = nn.Linear(128, 10), nn.Linear(128, 64)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x)
        return {"digit": self.digit(features), "image": self.image(features)}


def main(epochs: int = 10, steps: int | None = None, wiring: str = "depth1") -> nn.Module:
    """Train on the digits and return the model; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = Both()
    losses = {"digit": F.cross_entropy, "image": F.mse_loss}
    model = rc.attach(model, images()[:32], wiring, loss_fn=losses)  # the one line
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            found = model(x)
            loss = losses["digit"](found["digit"], y) + losses["image"](found["image"], x)
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        found = model(images()[TRAIN:])
    wrong, far = (found["digit"].argmax(1) != labels()[TRAIN:]).double().mean(), found["image"] - images()[TRAIN:]
    print(f"test error {100 * wrong:.2f} %, squared error of images {far.square().mean():.4f}")
    return model.train()


if __name__ == "__main__":
    main()
