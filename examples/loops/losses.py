"""Losses other than plain cross entropy, which `loss_fn` names.

    python examples/loops/losses.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from digits import batches, error, images, network
from torch import Tensor, nn

import reclra_compile as rc


def one_hot(y: Tensor) -> Tensor:
    """The labels as rows of zeros with a one."""
    return F.one_hot(y, 10).to(torch.get_default_dtype())


def same(y: Tensor) -> Tensor:
    """The labels as they are."""
    return y


#: each loss, and what it compares the output with
LOSSES: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
    "label smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), same),
    "weights of classes": (nn.CrossEntropyLoss(weight=torch.linspace(0.5, 1.5, 10)), same),
    "soft labels": (nn.CrossEntropyLoss(), lambda y: 0.9 * one_hot(y) + 0.1 * one_hot(y.flip(0))),
    "squared error": (nn.MSELoss(), one_hot),
    "yes or no": (nn.BCEWithLogitsLoss(reduction="sum"), one_hot),
}


def main(loss: str, epochs: int = 10, steps: int | None = None, wiring: str = "depth1") -> nn.Module:
    """Train on the digits with the loss of that name and return the model; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = network()
    loss_fn, target = LOSSES[loss]
    model = rc.attach(model, images()[:32], wiring, loss_fn=loss_fn)  # the one line
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            loss_fn(model(x), target(y)).backward()
            optimizer.step()
    print(f"{loss}: test error {error(model):.2f} %")
    return model


if __name__ == "__main__":
    for name in LOSSES:
        main(name)
