"""Images that are decoded when they are needed: folders too large for memory, with images of any size.

A batch is decoded by a pool of threads. What is random about it is drawn before, in the order of the batch, so
that the pixels do not depend on the threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from reclra_compile.data.faults import problem
from reclra_compile.data.images import FORMATS, check_depth, corrupt, pillow
from reclra_compile.data.readers import Array
from reclra_compile.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Box = tuple[int, int, int, int]

#: in evaluation, the short side of an image is this times the side that is cut from its centre (256 for 224)
MARGIN = 256 / 224
#: a random crop has this share of the image's area, and this aspect ratio
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
#: attempts to fit such a crop into the image, and numbers drawn for one image: two each, its place, the flip
ATTEMPTS = 10
DRAWS = 2 * ATTEMPTS + 3


def random_box(width: int, height: int, draws: Sequence[float], aspect: float = 1.0) -> Box:
    """Left, top, right and bottom of a crop, from `DRAWS` numbers in [0, 1); `aspect` is that of the result."""
    low, high = (math.log(r * aspect) for r in RATIO)
    for k in range(ATTEMPTS):
        area = width * height * (AREA[0] + (AREA[1] - AREA[0]) * draws[2 * k])
        ratio = math.exp(low + (high - low) * draws[2 * k + 1])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(draws[-3] * (width - w + 1)), int(draws[-2] * (height - h + 1))
            return left, top, left + w, top + h
    # a very long image: the largest crop from its centre with an aspect ratio that is allowed
    ratio = min(max(width / height, RATIO[0] * aspect), RATIO[1] * aspect)
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@dataclass(frozen=True, eq=False)
class Decoder:
    """Makes pixels of image files: float32 of `shape` (C, H, W) in [0, 1], with 1 or 3 channels, then `finish`ed.

    `crops` says whether training images are random resized crops, mirrored at random, or cut from the centre.
    """

    shape: tuple[int, int, int]
    pool: ThreadPoolExecutor
    crops: bool = True
    finish: Callable[[Array], Array] = lambda x: x

    def start(self, files: Sequence[str], generator: torch.Generator | None) -> Callable[[], Tensor]:
        """Begin to decode a batch, of training images where there is a generator; calling the result waits for it.

        The call raises DataError (D008, D009) that names the first file that cannot be decoded.
        """
        image = pillow("a folder of images")
        draws = self.draw(len(files), generator)
        out = np.empty((len(files), *self.shape), np.float32)

        def one(row: int) -> None:
            out[row] = self._pixels(image, files[row], draws[row] if draws else None)

        jobs = [self.pool.submit(one, row) for row in range(len(files))]
        return lambda: _finished(jobs, out)

    def draw(self, count: int, generator: torch.Generator | None) -> list[list[float]] | None:
        """What is random about a batch of so many images: `DRAWS` numbers each; None where nothing is."""
        import torch

        if generator is None or not self.crops:
            return None
        drawn: list[list[float]] = torch.rand(count, DRAWS, generator=generator, dtype=torch.float64).tolist()
        return drawn

    def _pixels(self, image: Any, file: str, draws: Sequence[float] | None) -> Array:
        channels, height, width = self.shape
        try:
            with image.open(file, formats=FORMATS) as opened:
                check_depth(opened.mode, file)
                picture = opened.convert("RGB" if channels == 3 else "L")
            bilinear = image.Resampling.BILINEAR
            if draws is None:
                scale = MARGIN * max(width / picture.width, height / picture.height)
                size = max(round(picture.width * scale), width), max(round(picture.height * scale), height)
                left, top = (size[0] - width) // 2, (size[1] - height) // 2
                picture = picture.resize(size, bilinear).crop((left, top, left + width, top + height))
            else:
                box = random_box(picture.width, picture.height, draws, width / height)
                picture = picture.resize((width, height), bilinear, box)
            x = np.asarray(picture, np.float32).reshape(height, width, channels).transpose(2, 0, 1) / np.float32(255)
        except DataError:
            raise
        # Pillow's decoders raise OSError, SyntaxError, ValueError and more on damaged files
        except Exception as error:
            raise corrupt(file, error) from error
        if draws is not None and draws[-1] < 0.5:
            x = x[:, :, ::-1]
        return self.finish(np.ascontiguousarray(x))


def _finished(jobs: Sequence[Future[None]], out: Array) -> Tensor:
    import torch

    try:
        for job in jobs:
            job.result()
    except BaseException:
        for job in jobs:
            job.cancel()
        raise
    return torch.from_numpy(out)


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a part, in place of a tensor of their pixels: a slice of it is another, an index makes pixels."""

    files: Sequence[str]
    decoder: Decoder
    device: str = "cpu"

    #: images decoded at once where a part is evaluated: 1,000 of 224×224 would be 600 MB, and as much for the next
    batch = 128

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: slice) -> Images: ...
    @overload
    def __getitem__(self, index: Tensor) -> Tensor: ...
    def __getitem__(self, index: slice | Tensor) -> Images | Tensor:
        if isinstance(index, slice):
            return replace(self, files=self.files[index])
        return self.start(index)()

    def to(self, device: str) -> Images:
        """The same images, decoded for a device."""
        return replace(self, device=device)

    def start(self, index: slice | Tensor, generator: torch.Generator | None = None) -> Callable[[], Tensor]:
        """Begin to decode some images, for training where there is a generator; calling the result gives them."""
        decoded = self.decoder.start(self.chosen(index), generator)
        return lambda: decoded().to(self.device)

    def chosen(self, index: slice | Tensor) -> Sequence[str]:
        """The files of some images."""
        return self.files[index] if isinstance(index, slice) else [self.files[k] for k in index.tolist()]


def check_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of one sample as (channels, height, width); raises DataError (D010) where it is no image's."""
    if len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape:
        raise problem(
            "D010", f"the model takes {shape}; images from a folder are (3, height, width), or grey (1, height, width)",
            "give example_inputs the shape (batch, 3, height, width); any size will do",
        )  # fmt: skip
    return shape[0], shape[1], shape[2]
