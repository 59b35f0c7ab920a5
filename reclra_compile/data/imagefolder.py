"""The data set `imagefolder`: {train,val}/CLASS/*, as ImageNet is laid out, decoded batch by batch."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reclra_compile.data.faults import problem
from reclra_compile.data.images import class_folders, pillow, samples
from reclra_compile.data.preprocess import channel_statistics, contrast_normalized_, standardized_
from reclra_compile.data.readers import Array, not_found
from reclra_compile.data.sets import Part, data_folder, held_out
from reclra_compile.data.stream import Decoder, Images, check_shape

if TYPE_CHECKING:
    from torch import Tensor

    from reclra_compile.frontend.example import Example

#: training images that channels are standardised by
FITTED_ON = 1000


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Files and labels in three parts; `few` ones are decoded at once, others when a batch needs them."""

    folder: str
    files: dict[Part, list[str]]
    labels: dict[Part, Array]
    classes: int
    name: str = "imagefolder"
    preprocess: str = "none"
    crops: bool = True
    workers: int = 1
    small: bool = False
    decoders: dict[tuple[int, int, int], Decoder] = field(default_factory=dict)

    def count(self, part: Part) -> int:
        """Images of a part."""
        return len(self.files[part])

    def few(self) -> ImageFolder:
        """The first two images of each part."""
        return replace(
            self, files={k: v[:2] for k, v in self.files.items()}, labels={k: v[:2] for k, v in self.labels.items()},
            small=True, preprocess="none", decoders={},
        )  # fmt: skip

    def split(self, part: Part, example: Example) -> tuple[tuple[Tensor | Images, ...], Tensor]:
        """Images and labels of a part, for a model that takes one image of the shape in `example`."""
        import torch

        shape = check_shape(tuple(example.tensors[0].shape[1:]))
        if shape not in self.decoders:
            self.decoders[shape] = self._decoder(shape)
        images = Images(self.files[part], self.decoders[shape])
        y = torch.from_numpy(self.labels[part])
        return (images.start(slice(None))() if self.small else images,), y

    def treated(self, preprocess: str, augment: str, workers: int) -> ImageFolder:
        """The same images, treated in this way and decoded by so many threads; raises DataError (D015)."""
        if preprocess == "gcn_zca":
            raise problem("D015", "ZCA whitening needs all images in memory, and imagefolder is read in batches",
                          "use --preprocess standardize or gcn, or --data folder with images of one size")  # fmt: skip
        crops = augment == "resized_crop_flip"
        return replace(self, preprocess=preprocess, crops=crops, workers=workers, decoders={})

    def digest(self) -> str:
        """A checksum of the files' names and labels in their order, to tell whether a resumed run has the same."""
        found = 0
        for part in sorted(self.files):
            for file in self.files[part]:
                found = zlib.crc32(os.path.relpath(file, self.folder).encode(errors="surrogateescape"), found)
            found = zlib.crc32(self.labels[part].tobytes(), found)
        return f"{found:08x}"

    def _decoder(self, shape: tuple[int, int, int]) -> Decoder:
        plain = Decoder(shape, ThreadPoolExecutor(self.workers, "decode"), self.crops)
        if self.preprocess == "gcn":
            return replace(plain, finish=_contrast_normalized)
        return replace(plain, finish=self._standardized(plain)) if self.preprocess == "standardize" else plain

    def _standardized(self, decoder: Decoder) -> Callable[[Array], Array]:
        """Channels standardised by some training images: the first ones, as their order is random."""
        import torch

        mean, deviation = channel_statistics(decoder.start(self.files["train"][:FITTED_ON], None)())

        def standardized(x: Array) -> Array:
            done: Array = standardized_(torch.from_numpy(x).unsqueeze(0), mean, deviation)[0].numpy()
            return done

        return standardized


def _contrast_normalized(x: Array) -> Array:
    import torch

    contrast_normalized_(torch.from_numpy(x).view(1, -1))
    return x


def image_folder(data_dir: str | os.PathLike[str] | None, *, validation: int = 0, seed: int = 0) -> ImageFolder:
    """List the images of a folder and hold `validation` of the training images out, chosen by `seed`.

    Labels are the places of the class folders' names in their sorted order. The training images are put in a fixed
    random order, so that the first ones stand for all. Raises DataError (D002, D003, D004, D008, D009, D011).
    """
    pillow("a folder of images")
    folder = data_folder("imagefolder", data_dir)
    train = folder / "train"
    test = folder / ("val" if os.path.isdir(folder / "val") else "test")
    if not (os.path.isdir(train) and os.path.isdir(test)):
        raise not_found(
            "imagefolder", folder, [str(train), f"{folder / 'val'} or {folder / 'test'}"],
            "the images as {train,val}/CLASS/*.{jpg,jpeg,png,pgm,ppm}",
        )  # fmt: skip
    names = [path.name for path in class_folders(train)]
    (files, labels), (test_files, test_labels) = (_listed(part, names) for part in (train, test))
    order = np.random.default_rng(0).permutation(len(files))
    held, kept = held_out(len(files), validation, seed)
    rows = {"valid": order[held], "train": order[kept]}
    return ImageFolder(
        str(folder),
        {"train": [files[k] for k in rows["train"]], "valid": [files[k] for k in rows["valid"]], "test": test_files},
        {"train": labels[rows["train"]], "valid": labels[rows["valid"]], "test": test_labels},
        len(names),
    )


def _listed(part: Path, names: list[str]) -> tuple[list[str], Array]:
    found = samples(part, names)
    return [s.file for s in found], np.array([s.label for s in found], np.int64)
