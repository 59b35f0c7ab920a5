"""ResNet-18 and ResNet-50 at ImageNet's size: 224×224 images, 1000 classes; layers are named as torchvision's.

    reclra-compile examples/resnet_imagenet.py:resnet50 --wiring blocks --meta
    reclra-compile regions examples/resnet_imagenet.py:resnet50 --granularity groups=4 --meta
    reclra-compile train examples/resnet_imagenet.py:resnet18 --wiring blocks --epochs 1 --batch-size 4

`--meta` plans without allocating the weights. The data are a few random images, enough for a step.
"""

import torch
from torch import nn


class BasicBlock(nn.Module):
    """φ(x + two 3×3 convolutions)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu, self.downsample = nn.ReLU(inplace=True), downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += identity
        return self.relu(y)


class Bottleneck(nn.Module):
    """φ(x + a 1×1, a 3×3 and a 1×1 convolution)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu, self.downsample = nn.ReLU(inplace=True), downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += identity
        return self.relu(y)


class ResNet(nn.Module):
    """A 7×7 stem with pooling and four stages of blocks."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...], classes: int = 1000
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, depth in enumerate(depths):
            width, blocks = 64 * 2**stage, []
            for k in range(depth):
                stride, outputs = (2 if stage and not k else 1), width * block.expansion
                downsample = None
                if stride != 1 or inputs != outputs:
                    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                    downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))
                blocks.append(block(inputs, width, stride, downsample))
                inputs = outputs
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(inputs, classes)
        nn.init.normal_(self.fc.weight, std=0.001)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet18() -> nn.Module:
    return ResNet(BasicBlock, (2, 2, 2, 2))


def resnet50() -> nn.Module:
    return ResNet(Bottleneck, (3, 4, 6, 3))


build_model = resnet18


def example_inputs() -> torch.Tensor:
    return torch.zeros(4, 3, 224, 224)


def data() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Random images: a step's time and memory can be measured with them, nothing can be learned."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, 224, 224, generator=generator)
    y = torch.randint(0, 1000, (8,), generator=generator)
    return {"train": (x[:4], y[:4]), "test": (x[4:], y[4:])}
