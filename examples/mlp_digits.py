"""A multilayer perceptron for scikit-learn's 8×8 digits: 5 hidden layers of 128 units.

    reclra-compile train examples/mlp_digits.py --wiring depth2 --compare backprop
"""

from itertools import pairwise

import torch
from torch import nn


def build_model() -> nn.Module:
    """Glorot weights; an output layer near zero, which output-fed error synapses start from."""
    sizes = [64, 128, 128, 128, 128, 128]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layer = nn.Linear(before, after)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    output = nn.Linear(sizes[-1], 10)
    nn.init.normal_(output.weight, std=0.001)
    nn.init.zeros_(output.bias)
    return nn.Sequential(*layers, output)


example_inputs = torch.zeros(32, 64)
