"""What the loops of this folder share: scikit-learn's digits in batches, a small network, and its error."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

_IMAGES, _LABELS = load_digits(return_X_y=True)
TRAIN, BATCH = 1437, 64


def images() -> Tensor:
    """All images as rows of 64 numbers in 0…1; the first `TRAIN` are for training."""
    return torch.tensor(_IMAGES, dtype=torch.get_default_dtype()) / 16


def labels() -> Tensor:
    """The digit of each image."""
    return torch.tensor(_LABELS)


def batches(size: int = BATCH, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of full batches in a random order: at most `limit` of them."""
    x, y = images(), labels()
    order = torch.randperm(TRAIN).split(size)
    for index in order[: limit or TRAIN // size]:
        yield x[index], y[index]


def network(hidden: int = 128, normalize: bool = False) -> nn.Sequential:
    """Two hidden layers, with batch normalization if wanted."""
    layers: list[nn.Module] = []
    for before in (64, hidden):
        layers += [nn.Linear(before, hidden), *([nn.BatchNorm1d(hidden)] if normalize else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, 10))


def error(model: nn.Module) -> float:
    """Percent of the test images that the model gets wrong."""
    x, y = images()[TRAIN:], labels()[TRAIN:]
    was = model.training
    model.eval()
    with torch.no_grad():
        wrong = (model(x).argmax(1) != y).double().mean()
    model.train(was)
    return 100 * float(wrong)
