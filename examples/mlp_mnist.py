"""A multilayer perceptron for 28×28 images: 5 hidden layers of 256 units, as in the paper's Table 1.

    reclra-compile train examples/mlp_mnist.py:relu --wiring depth2 --data mnist --data-dir FOLDER

One builder per activation: relu, tanh, elu, sign. Weights are Glorot-initialised; the output layer
starts near zero, which output-fed read-outs need (every wiring starts from the same weights).
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn

from reclra_compile.layers import Sign


class MLP(nn.Sequential):
    """`hidden` linear layers fc1, fc2, … of `width` units with `activation` between them, and an output layer."""

    def __init__(
        self, activation: type[nn.Module], inputs: int = 784, width: int = 256, hidden: int = 5, classes: int = 10
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for k, (before, after) in enumerate(pairwise([inputs, *[width] * hidden]), 1):
            layer = nn.Linear(before, after)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
            layers[f"fc{k}"], layers[f"phi{k}"] = layer, activation()
        output = nn.Linear(width, classes)
        nn.init.normal_(output.weight, std=0.001)
        nn.init.zeros_(output.bias)
        layers["out"] = output
        super().__init__(layers)


def relu() -> nn.Module:
    return MLP(nn.ReLU)


def tanh() -> nn.Module:
    return MLP(nn.Tanh)


def elu() -> nn.Module:
    return MLP(nn.ELU)


def sign() -> nn.Module:
    return MLP(Sign)


def example_inputs() -> torch.Tensor:
    return torch.zeros(128, 784)
