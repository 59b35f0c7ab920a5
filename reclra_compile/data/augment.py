"""Augmentation: random flips and crops of a batch of images, drawn from the generator of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Augment = Literal["none", "flip", "crop_flip", "resized_crop_flip"]
KINDS: tuple[str, ...] = get_args(Augment)

#: what becomes of a batch's inputs in training
Augmentation = Callable[[tuple["Tensor", ...], "torch.Generator"], tuple["Tensor", ...]]

#: pixels of zeros around an image that a crop of the image's size is cut from
PADDING = 4


def flipped(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images of shape (N, C, H, W), each mirrored left to right with probability ½."""
    import torch

    flip = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(flip.to(x.device).view(-1, 1, 1, 1), x.flip(-1), x)


def cropped(x: Tensor, generator: torch.Generator, padding: int = PADDING) -> Tensor:
    """Images of shape (N, C, H, W), each shifted by up to `padding` pixels both ways; zeros come in from outside."""
    import torch
    import torch.nn.functional as F

    n, channels, height, width = x.shape
    shift = torch.randint(2 * padding + 1, (2, n), generator=generator).to(x.device)
    rows = shift[0].view(-1, 1) + torch.arange(height, device=x.device)
    columns = shift[1].view(-1, 1) + torch.arange(width, device=x.device)
    images = torch.arange(n, device=x.device).view(-1, 1, 1, 1)
    planes = torch.arange(channels, device=x.device).view(1, -1, 1, 1)
    return F.pad(x, (padding,) * 4)[images, planes, rows[:, None, :, None], columns[:, None, None, :]]


def augmentation(kind: str, shape: tuple[int, int, int]) -> Augmentation | None:
    """The function on a batch of one input, images of (C, H, W) in any layout; None where nothing is to be done.

    `resized_crop_flip` happens where images are decoded, see `data.stream`.
    """
    if kind not in ("flip", "crop_flip"):
        return None

    def augment(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        (x,) = inputs
        images = x.view(len(x), *shape)
        if kind == "crop_flip":
            images = cropped(images, generator)
        return (flipped(images, generator).view_as(x),)

    return augment
