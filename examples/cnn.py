"""Convolutional networks for images: LeNet-like for 8×8 and 28×28 grey images, a wider one for 32×32 colour.

    reclra-compile train examples/cnn.py --wiring depth1_local --compare backprop
    reclra-compile train examples/cnn.py:mnist --wiring depth1_local --data fashion_mnist --data-dir FOLDER
    reclra-compile train examples/cnn.py:cifar10 --wiring depth1_local --data cifar10 --data-dir FOLDER

Builders: `digits` (8×8), `mnist` (28×28, also Fashion-MNIST), `cifar10` (3×32×32). The output layer starts near
zero, which output-fed read-outs need.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn


class CNN(nn.Sequential):
    """Convolutions conv1, conv2, … with ReLU and 2×2 pooling, a hidden linear layer, and a linear output layer.

    With `norm`, batch normalisation follows every layer but the last; without it, weights are He-initialised.
    """

    def __init__(
        self, channels: tuple[int, ...], window: int, size: int, hidden: int, norm: bool = False, classes: int = 10
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for k, (before, after) in enumerate(pairwise(channels), 1):
            layers[f"conv{k}"] = nn.Conv2d(before, after, window, padding=window // 2)
            layers |= {f"bn{k}": nn.BatchNorm2d(after)} if norm else {}
            layers[f"relu{k}"], layers[f"pool{k}"] = nn.ReLU(), nn.MaxPool2d(2)
        pooled = size // 2 ** (len(channels) - 1)
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(channels[-1] * pooled * pooled, hidden)
        layers |= {"bn": nn.BatchNorm1d(hidden)} if norm else {}
        layers["relu"] = nn.ReLU()
        if not norm:  # behind a norm the scale of the weights does not matter
            for layer in layers.values():
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
        layers["out"] = nn.Linear(hidden, classes)
        nn.init.normal_(layers["out"].weight, std=0.001)
        nn.init.zeros_(layers["out"].bias)
        super().__init__(layers)
        self.example_input_array = torch.zeros(32, channels[0], size, size)


def digits() -> nn.Module:
    return CNN((1, 16, 32), window=3, size=8, hidden=64)


def mnist() -> nn.Module:
    return CNN((1, 6, 16), window=5, size=28, hidden=120)


def cifar10() -> nn.Module:
    return CNN((3, 32, 64, 64), window=3, size=32, hidden=128, norm=True)


build_model = digits
