"""A multilayer perceptron for scikit-learn's 8×8 digits: 5 hidden layers of 128 units.

    reclra-compile train examples/mlp_digits.py --wiring depth2 --compare backprop
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn


class MLP(nn.Sequential):
    """Linear layers fc1, fc2, … with ReLU between them, and a linear output layer.

    Glorot weights; an output layer near zero, which output-fed error synapses start from.
    """

    def __init__(self, sizes: tuple[int, ...], classes: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for k, (before, after) in enumerate(pairwise(sizes), 1):
            layer = nn.Linear(before, after)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
            layers[f"fc{k}"], layers[f"relu{k}"] = layer, nn.ReLU()
        output = nn.Linear(sizes[-1], classes)
        nn.init.normal_(output.weight, std=0.001)
        nn.init.zeros_(output.bias)
        layers["out"] = output
        super().__init__(layers)


def build_model() -> nn.Module:
    return MLP((64, 128, 128, 128, 128, 128), classes=10)


example_inputs = torch.zeros(32, 64)
