"""ResNet-18 for 32×32 colour images: a stem, four stages of two residual blocks (skip g = 2), a linear head.

    reclra-compile train examples/resnet_cifar.py:conv16 --wiring blocks --data cifar10 --data-dir FOLDER
    reclra-compile examples/resnet_cifar.py:perturbative --wiring blocks --granularity groups=3

Builders: `conv` (64 filters, the paper's), `conv16` (16 filters, trains on a laptop), `perturbative` (64 noise
masks in place of the 3×3 filters), `perturbative16`.
"""

import torch
import torch.nn.functional as F
from torch import nn

from reclra_compile.layers import PerturbativeConv2d


def filters(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    """A 3×3 convolution."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


def masks(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    """Noise masks on the `size`×`size` input map, and learned combinations of them (E7)."""
    return PerturbativeConv2d(inputs, outputs, size, stride=stride, bias=False, seed=inputs * size)


class BasicBlock(nn.Module):
    """φ(x + two layers), with a 1×1 convolution on the skip where the shape changes."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, layer=filters) -> None:
        super().__init__()
        self.conv1, self.bn1 = layer(inputs, outputs, size, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = layer(outputs, outputs, size // stride, 1), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """`width` filters in the first stage, twice as many in each that follows."""

    def __init__(self, width: int, layer=filters, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        inputs, size = width, 32
        for stage in range(4):
            outputs, stride = width * 2**stage, 1 if stage == 0 else 2
            first = BasicBlock(inputs, outputs, size, stride, layer)
            size //= stride
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, BasicBlock(outputs, outputs, size, 1, layer)))
            inputs = outputs
        self.fc = nn.Linear(inputs, classes)
        nn.init.normal_(self.fc.weight, std=0.001)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def conv() -> nn.Module:
    return ResNet(64)


def conv16() -> nn.Module:
    return ResNet(16)


def perturbative() -> nn.Module:
    return ResNet(64, masks)


def perturbative16() -> nn.Module:
    return ResNet(16, masks)


build_model = conv16


def example_inputs() -> torch.Tensor:
    return torch.zeros(64, 3, 32, 32)
