"""Losses other than cross entropy, and a model with several outputs.

    python examples/loops/losses.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from digits import batches, images, labels, network
from torch import Tensor, nn

import reclra_compile as rc


class Both(nn.Module):
    """A network that returns its logits and its features; the loss is of the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()[:-1]
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x)
        return {"logits": self.head(features), "features": features}


def one_hot(y: Tensor) -> Tensor:
    """The labels as rows of zeros with a one."""
    return F.one_hot(y, 10).to(torch.get_default_dtype())


def mse(output: Tensor, y: Tensor) -> Tensor:
    """Squared error to the one-hot label."""
    return F.mse_loss(output, one_hot(y))


def bce(output: Tensor, y: Tensor) -> Tensor:
    """Ten questions of yes or no."""
    return F.binary_cross_entropy_with_logits(output, one_hot(y), reduction="sum")


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "label_smoothing": nn.CrossEntropyLoss(label_smoothing=0.1),
    "weighted": nn.CrossEntropyLoss(weight=torch.linspace(0.5, 1.5, 10), reduction="sum"),
    "mse": mse,
    "bce": bce,
    "several": F.cross_entropy,
}


def main(loss: str = "mse", epochs: int = 10, steps: int | None = None, wiring: str = "depth1") -> nn.Module:
    """Train on the digits with the loss of that name and return the model; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = Both() if loss == "several" else network()
    criterion = LOSSES[loss]
    model = rc.attach(model, images()[:32], wiring, loss_fn=criterion)  # the one line
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def logits(x: Tensor) -> Tensor:
        output = model(x)
        return output["logits"] if loss == "several" else output

    for _ in range(epochs):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            criterion(logits(x), y).backward()
            optimizer.step()
    model.eval()
    wrong = (logits(images()[1437:]).argmax(1) != labels()[1437:]).double().mean()
    print(f"{loss}: test error {100 * wrong:.2f} %")
    return model


if __name__ == "__main__":
    for name in LOSSES:
        main(name)
