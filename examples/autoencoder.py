"""An autoencoder for 8×8 digits: the loss is the mean squared error of the image it gives back.

    reclra-compile train examples/autoencoder.py --wiring depth1 --compare backprop
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


def build_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ELU(), nn.Linear(128, 64), nn.ELU(), nn.Linear(64, 12), nn.ELU(),
        nn.Linear(12, 64), nn.ELU(), nn.Linear(64, 128), nn.ELU(), nn.Linear(128, 64),
    )  # fmt: skip


def example_inputs() -> torch.Tensor:
    return torch.zeros(32, 64)


loss_fn = F.mse_loss


def data() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Images, and the same as what to give back."""
    images = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = images[order[:1500]], images[order[1500:]]
    return {"train": (train, train), "test": (test, test)}
