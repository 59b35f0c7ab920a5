"""An MLP-Mixer: layers across tokens and layers across channels, in turn.

    reclra-compile train examples/mlp_mixer.py --wiring groups --granularity groups=2 --compare backprop
    reclra-compile train examples/mlp_mixer.py:cifar10 --wiring groups --data cifar10 --data-dir FOLDER
"""

import torch
from torch import nn


def mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Mixer(nn.Module):
    """One mixer block: tokens, then channels, each behind a norm and added to what it reads."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.across_tokens = nn.LayerNorm(width), mlp(tokens, 2 * tokens)
        self.norm2, self.across_channels = nn.LayerNorm(width), mlp(width, 2 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.across_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.across_channels(self.norm2(x))


class MLPMixer(nn.Module):
    """`depth` mixer blocks over the patches of a square image; the tokens' mean is classified."""

    def __init__(self, channels: int, size: int, patch: int, width: int, depth: int, classes: int = 10) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, width, patch, patch)
        self.mixers = nn.Sequential(*(Mixer((size // patch) ** 2, width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.zeros_(self.head.bias)
        self.example_input_array = torch.zeros(32, channels, size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mixers(self.patch(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(dim=1))


def digits() -> nn.Module:
    return MLPMixer(channels=1, size=8, patch=2, width=48, depth=3)


def cifar10() -> nn.Module:
    return MLPMixer(channels=3, size=32, patch=4, width=128, depth=4)


build_model = digits
