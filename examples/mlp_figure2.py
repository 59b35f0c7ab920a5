"""Deep multilayer perceptrons for 28×28 images, as in the paper's Figure 2: 8 hidden layers of 256 units.

    reclra-compile train examples/mlp_figure2.py:sigmoid --wiring depth2 --data mnist --data-dir FOLDER

Builders: sigmoid, tanh. All weights are drawn from one Gaussian of standard deviation 0.05, whatever the layer's
size, which makes sigmoid networks hard for backpropagation: errors vanish on their way down.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn

DEVIATION = 0.05


class DeepMLP(nn.Sequential):
    """`hidden` linear layers fc1, fc2, … of `width` units with `activation` behind each, and an output layer."""

    def __init__(
        self, activation: type[nn.Module], inputs: int = 784, width: int = 256, hidden: int = 8, classes: int = 10
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for k, (before, after) in enumerate(pairwise([inputs, *[width] * hidden]), 1):
            layers[f"fc{k}"], layers[f"phi{k}"] = nn.Linear(before, after), activation()
        layers["out"] = nn.Linear(width, classes)
        for layer in layers.values():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=DEVIATION)
                nn.init.zeros_(layer.bias)
        super().__init__(layers)


def sigmoid() -> nn.Module:
    return DeepMLP(nn.Sigmoid)


def tanh() -> nn.Module:
    return DeepMLP(nn.Tanh)


def example_inputs() -> torch.Tensor:
    return torch.zeros(128, 784)
