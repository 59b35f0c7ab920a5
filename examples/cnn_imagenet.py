"""A plain convolutional network at ImageNet's size: 224×224 images, 1000 classes, no skips.

    reclra-compile examples/cnn_imagenet.py --wiring depth1_local --meta

Five convolutions and two hidden layers in the manner of AlexNet, with batch normalisation. The output layer starts
near zero, which output-fed read-outs need.
"""

from collections import OrderedDict

import torch
from torch import nn

#: outputs, filter size, stride, padding, and whether 3×3 pooling follows
CONVOLUTIONS = (
    (64, 11, 4, 2, True), (192, 5, 1, 2, True), (384, 3, 1, 1, False), (256, 3, 1, 1, False), (256, 3, 1, 1, True),
)  # fmt: skip


def build_model(classes: int = 1000, hidden: int = 4096) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = 3
    for k, (outputs, size, stride, padding, pooled) in enumerate(CONVOLUTIONS, 1):
        layers[f"conv{k}"] = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        layers[f"bn{k}"], layers[f"relu{k}"] = nn.BatchNorm2d(outputs), nn.ReLU()
        layers |= {f"pool{k}": nn.MaxPool2d(3, 2)} if pooled else {}
        inputs = outputs
    layers["flatten"] = nn.Flatten()
    inputs *= 6 * 6
    for k in (6, 7):
        layers[f"fc{k}"], layers[f"bn{k}"], layers[f"relu{k}"] = (
            nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
        )  # fmt: skip
        inputs = hidden
    layers["out"] = nn.Linear(hidden, classes)
    nn.init.normal_(layers["out"].weight, std=0.001)
    nn.init.zeros_(layers["out"].bias)
    return nn.Sequential(layers)


def example_inputs() -> torch.Tensor:
    return torch.zeros(4, 3, 224, 224)
