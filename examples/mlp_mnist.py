"""A multilayer perceptron for 28×28 images: 5 hidden layers of 256 units, as in the paper's Table 1.

    reclra-compile train examples/mlp_mnist.py:relu --wiring depth2 --data mnist --data-dir FOLDER

One builder per activation: relu, tanh, elu, sign. Weights are Glorot-initialised; the output layer
starts near zero, which output-fed read-outs need (every wiring starts from the same weights).
"""

from itertools import pairwise

import torch
from torch import nn

from reclra_compile.layers import Sign


def mlp(activation: type[nn.Module], inputs: int = 784, width: int = 256, hidden: int = 5, classes: int = 10):
    """Linear layers of `width` units with `activation` between them."""
    layers: list[nn.Module] = []
    sizes = [inputs, *[width] * hidden]
    for before, after in pairwise(sizes):
        layer = nn.Linear(before, after)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers += [layer, activation()]
    output = nn.Linear(width, classes)
    nn.init.normal_(output.weight, std=0.001)
    nn.init.zeros_(output.bias)
    return nn.Sequential(*layers, output)


def relu():
    return mlp(nn.ReLU)


def tanh():
    return mlp(nn.Tanh)


def elu():
    return mlp(nn.ELU)


def sign():
    return mlp(Sign)


def example_inputs():
    return torch.zeros(128, 784)
