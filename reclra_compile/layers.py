"""Modules the compiler ships: an activation that torch has only as a function, and the paper's pseudo-convolution."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sign(nn.Module):
    """z = sign(h), elementwise in {−1, 0, 1}; its derivative is zero, so it needs a rule without φ'."""

    def forward(self, h: Tensor) -> Tensor:
        """Apply sign to `h` of any shape."""
        return torch.sign(h)


class PerturbativeConv2d(nn.Module):
    """Fixed noise maps and learned combinations in place of a convolution (E7): z^c = Σ_m w^{c,m} relu(z^m + n^m).

    `size` is the (H, W) of the input map, which the noise maps have too; each of the `masks` noise maps is
    drawn once from N(0, σ²) with `seed`, and input map m % in_channels gets it (so `masks` is a multiple of
    `in_channels`, which is the default). Only `weight`, (out_channels, masks, 1, 1), and `bias` learn.
    (N, in_channels, H, W) → (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉). Raises ValueError for sizes that do not fit.
    """

    noise: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int | tuple[int, int],
        masks: int | None = None,
        sigma: float = 0.1,
        stride: int = 1,
        bias: bool = True,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.masks = in_channels if masks is None else masks
        self.sigma, self.seed = sigma, seed
        if min(in_channels, out_channels, stride, *self.size) < 1 or sigma < 0:
            raise ValueError("channels, size and stride are at least 1, sigma is not negative")
        if self.masks < 1 or self.masks % in_channels:
            raise ValueError(f"masks ({self.masks}) has to be a multiple of in_channels ({in_channels})")
        factory = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(out_channels, self.masks, 1, 1, **factory))  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.empty(out_channels, **factory)) if bias else None  # type: ignore[arg-type]
        # kept in checkpoints, because generators may differ between versions of torch
        self.register_buffer("noise", self._drawn().to(self.weight) * sigma)
        self._draw_weights()

    def reset_parameters(self) -> None:
        """Draw the weights anew from the global random state; the noise maps become those of the layer's seed."""
        self.noise.copy_(self._drawn() * self.sigma)
        self._draw_weights()

    def _draw_weights(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / math.sqrt(self.masks), 1 / math.sqrt(self.masks))

    def _drawn(self) -> Tensor:
        """Standard normal maps from the layer's own seed, (1, masks, H, W); the global random state stays as it is."""
        device = "meta" if self.weight.is_meta else "cpu"
        generator = torch.Generator("cpu").manual_seed(self.seed)
        return torch.empty(1, self.masks, *self.size, device=device).normal_(generator=generator)

    def perturbed(self, z: Tensor) -> Tensor:
        """relu(z^m + n^m), which the weights combine: (N, in_channels, H, W) → (N, masks, H, W)."""
        if self.masks != self.in_channels:
            z = z.repeat(1, self.masks // self.in_channels, 1, 1)
        return torch.relu(z + self.noise)

    def forward(self, z: Tensor) -> Tensor:
        """Apply E7 to `z`, (N, in_channels, H, W)."""
        return F.conv2d(self.perturbed(z), self.weight, self.bias, self.stride)

    def extra_repr(self) -> str:
        """Sizes and noise, as other layers show theirs."""
        height, width = self.size
        return (
            f"{self.in_channels}, {self.out_channels}, size={height}x{width}, masks={self.masks}, "
            f"sigma={self.sigma:g}, stride={self.stride}, bias={self.bias is not None}, seed={self.seed}"
        )


#: layers that tracing keeps whole
LEAVES: tuple[type[nn.Module], ...] = (Sign, PerturbativeConv2d)
