"""The models of `pipeline.py`: each whole, as rec-LRA takes it, and as the parts that stages are made of."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXAMPLES = Path(__file__).parent.parent / "examples"
SEED = 0


@dataclass(frozen=True)
class Wired:
    """One wiring of a case, and what divides the model into regions; None is what the wiring says."""

    wiring: str
    granularity: str | None = None


@dataclass(frozen=True)
class Case:
    """A model with a batch. `parts`, run one after the other, are the model and share its parameters."""

    name: str
    title: str
    batch: int
    shape: tuple[int, ...]
    make: Callable[[], nn.Module]
    parts: Callable[[nn.Module], list[nn.Module]]
    wirings: tuple[Wired, ...]
    targets: tuple[tuple[int, float], ...] = ()  #: microbatches and the ratio depth1 ÷ 1F1B that is to be reached

    def build(self) -> nn.Module:
        """The model in train mode, with the same weights each time."""
        torch.manual_seed(SEED)
        return self.make().train()

    def data(self) -> tuple[Tensor, Tensor]:
        """Inputs and classes, the same each time."""
        drawn = torch.Generator().manual_seed(SEED)
        return torch.randn(self.batch, *self.shape, generator=drawn), torch.randint(10, (self.batch,), generator=drawn)


class Embed(nn.Module):
    """What a ViT does before its blocks."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.patch, self.cls, self.pos = vit.patch, vit.cls, vit.pos

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.pos


class Classify(nn.Module):
    """What a ViT does behind its blocks."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.norm, self.head = vit.norm, vit.head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x)[:, 0])
        return logits


def mlp(hidden: int, width: int, inputs: int) -> nn.Sequential:
    """`hidden` ReLU layers of `width` units, 10 classes."""
    layers: list[nn.Module] = []
    for k in range(hidden):
        layers += [nn.Linear(width if k else inputs, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The linear layers of an MLP, each with the activation behind it."""
    found = list(model.children())
    return [nn.Sequential(*found[k : k + 2]) for k in range(0, len(found), 2)]


def vit_parts(model: nn.Module) -> list[nn.Module]:
    """The blocks of a ViT, and what is before and behind them."""
    return [Embed(model), *model.blocks, Classify(model)]


def resnet_parts(model: nn.Module) -> list[nn.Module]:
    """The blocks of a ResNet, and what is before and behind them."""
    stages = [getattr(model, f"layer{k}") for k in (1, 2, 3, 4)]
    return [
        nn.Sequential(model.conv1, model.bn1, nn.ReLU()),
        *(block for stage in stages for block in stage),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.fc),
    ]


def example(name: str) -> ModuleType:
    """A file of `examples`, as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def vit() -> nn.Module:
    """8 blocks of 128 features over 65 tokens."""
    made: nn.Module = example("vit").ViT(channels=3, size=32, patch=4, width=128, depth=8, heads=4)
    return made


def resnet() -> nn.Module:
    """ResNet-18 with 16 filters."""
    made: nn.Module = example("resnet_cifar").conv16()
    return made


loss_fn = F.cross_entropy
LAYERS = (Wired("depth1"), Wired("blocks"), Wired("backprop"))
BLOCKS = (Wired("depth1"), Wired("blocks"), Wired("groups"), Wired("backprop", "block"))
CASES = {
    c.name: c
    for c in (
        Case("mlp", "MLP 8 × 1024", 512, (784,), lambda: mlp(8, 1024, 784), layers_of, LAYERS,
             ((2, 0.60), (4, 0.62), (8, 0.65))),
        Case("vit", "ViT, 8 blocks of 128", 48, (3, 32, 32), vit, vit_parts, BLOCKS),
        Case("resnet", "ResNet-18, 16 filters", 64, (3, 32, 32), resnet, resnet_parts, BLOCKS),
        Case("tiny", "MLP 8 × 16", 24, (12,), lambda: mlp(8, 16, 12), layers_of, LAYERS),
    )
}  # fmt: skip
