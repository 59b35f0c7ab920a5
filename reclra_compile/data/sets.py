"""Image classification data sets, read from local files only: nothing is ever downloaded.

Torch and scikit-learn are imported where they are used, so that names and help cost nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from reclra_compile.data.cifar import read_cifar10
from reclra_compile.data.faults import CODES, optional, problem
from reclra_compile.data.images import read_folder
from reclra_compile.data.readers import Array, Parts, read_mnist_like
from reclra_compile.errors import nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from reclra_compile.frontend.example import Example

__all__ = ["CODES", "ENVIRONMENT", "NAMES", "DataSet", "Part", "batches", "describe", "load", "pixels"]

Part = Literal["train", "valid", "test"]

#: the variable that names the data folder where none is passed
ENVIRONMENT = "RECLRA_DATA"

_ABOUT: dict[str, str] = {
    "digits": "1,797 grey 8x8 images of handwritten digits that come with scikit-learn; needs no data folder",
    "mnist": "70,000 grey 28x28 images of handwritten digits: mnist.npz, or the four IDX files [.gz]",
    "fashion_mnist": "70,000 grey 28x28 images of clothes: fashion_mnist.npz, or the four IDX files [.gz]",
    "cifar10": "60,000 colour 32x32 photographs: cifar10.npz (arrays or JPEGs), or cifar-10-batches-bin",
    "folder": "your images, all of one size: {train,test|val}/CLASS/*.{png,jpg,jpeg,pgm,ppm}",
}

#: the data sets `load` knows, the default first
NAMES: tuple[str, ...] = tuple(_ABOUT)

_LAYOUTS: dict[str, str] = {
    "mnist": "mnist.npz, mnist/mnist.npz, or the IDX files in FOLDER, FOLDER/mnist or FOLDER/MNIST/raw",
    "fashion_mnist": (
        "fashion_mnist.npz, fashion_mnist/fashion_mnist.npz, or the IDX files in FOLDER, "
        "FOLDER/fashion_mnist or FOLDER/FashionMNIST/raw"
    ),
    "cifar10": "cifar10.npz, cifar10/cifar10.npz, or cifar-10-batches-bin/*.bin",
    "folder": "{train,test|val}/CLASS/*.{png,jpg,jpeg,pgm,ppm}",
    "imagefolder": "{train,val|test}/CLASS/*.{jpg,jpeg,png,pgm,ppm}",
}

#: sample shapes as published, to suggest a set that fits a model
_SAMPLES: dict[str, tuple[int, ...]] = {
    "digits": (8, 8),
    "mnist": (28, 28),
    "fashion_mnist": (28, 28),
    "cifar10": (32, 32, 3),
}


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """Images and labels in three parts; images are uint8 (0 to 255) or float32 (0 to 1, or preprocessed)."""

    name: str
    x_train: Array
    y_train: Array
    x_valid: Array
    y_valid: Array
    x_test: Array
    y_test: Array
    classes: int
    preprocess: str = "none"  #: what has been done to the images

    def count(self, part: Part) -> int:
        """Images of a part."""
        return len({"train": self.x_train, "valid": self.x_valid, "test": self.x_test}[part])

    def few(self) -> DataSet:
        """The first two images of each part."""
        few = slice(2)
        return replace(
            self, x_train=self.x_train[few], y_train=self.y_train[few], x_valid=self.x_valid[few],
            y_valid=self.y_valid[few], x_test=self.x_test[few], y_test=self.y_test[few],
        )  # fmt: skip

    def split(self, part: Part, example: Example) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs and labels of a part, for a model that takes one image of the shape in `example`."""
        x, y = self.as_tensors(part, tuple(example.tensors[0].shape[1:]))
        return (x,), y

    @property
    def image(self) -> tuple[int, int, int] | None:
        """Channels, height and width of an image; None where samples are rows of features."""
        shape = self.x_train.shape[1:]
        return (1, shape[0], shape[1]) if len(shape) == 2 else (shape[2], *shape[:2]) if len(shape) == 3 else None

    def as_tensors(self, part: Part, sample_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """One part as float32 images of the shape the model takes, and int64 labels.

        Pixels are in [0, 1] unless preprocessed. Colour images become channels first, also where they are flattened.
        """
        import torch

        images: Array = {"train": self.x_train, "valid": self.x_valid, "test": self.x_test}[part]
        labels: Array = {"train": self.y_train, "valid": self.y_valid, "test": self.y_test}[part]
        wanted, sample = tuple(sample_shape), images.shape[1:]
        if wanted not in _accepted(sample):
            raise _misfit(self.name, sample, wanted)
        x = torch.from_numpy(pixels(images).reshape(len(images), *wanted))
        return x, torch.from_numpy(labels.astype(np.int64))


def pixels(images: Array) -> Array:
    """Images as a new float32 array, uint8 ones divided by 255; (N, H, W, C) becomes (N, C, H, W)."""
    if images.ndim == 4:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    top = np.float32(255 if images.dtype == np.uint8 else 1)
    # a division always makes a new array, so changing the tensor never changes the data set
    divided: Array = np.divide(images, top, dtype=np.float32)
    return divided


def describe(name: str) -> str:
    """What a data set is and which files it is read from, in one line."""
    if name not in _ABOUT:
        raise problem("D001", f"there is no data set '{name}'", nearest(name, NAMES))
    return _ABOUT[name]


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    validation: int = 0,
    seed: int = 0,
) -> DataSet:
    """Read a data set and hold `validation` of its training images out, chosen by `seed`."""
    describe(name)
    parts = _digits() if name == "digits" else _read(name, data_folder(name, data_dir))
    held, kept = held_out(len(parts.x_train), validation, seed)
    return DataSet(
        name=name,
        x_train=parts.x_train[kept],
        y_train=parts.y_train[kept],
        x_valid=parts.x_train[held],
        y_valid=parts.y_train[held],
        x_test=parts.x_test,
        y_test=parts.y_test,
        classes=parts.classes,
    )


def batches(n: int, batch_size: int, *, generator: torch.Generator, drop_last: bool) -> Iterator[Tensor]:
    """The indices 0 to n - 1 in random order, in batches; an incomplete last one may be dropped."""
    if batch_size < 1:
        raise problem("D012", f"the batch size is {batch_size}", "use a batch size of 1 or more")
    if drop_last and 0 < n < batch_size:
        raise problem(
            "D012", f"the batch size {batch_size} is larger than the {n} images, which leaves no whole batch",
            f"use a batch size of at most {n}",
        )  # fmt: skip
    return _batches(n, batch_size, generator, drop_last)


def _batches(n: int, batch_size: int, generator: torch.Generator, drop_last: bool) -> Iterator[Tensor]:
    import torch

    order = torch.randperm(n, generator=generator, device=generator.device)
    stop = n - n % batch_size if drop_last else n
    for start in range(0, stop, batch_size):
        yield order[start : start + batch_size]


def _read(name: str, folder: Path) -> Parts:
    if name == "cifar10":
        return read_cifar10(folder)
    return read_folder(folder) if name == "folder" else read_mnist_like(folder, name)


def data_folder(name: str, data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder that is given or that the environment names; raises DataError (D002)."""
    given = os.fspath(data_dir) if data_dir is not None else os.environ.get(ENVIRONMENT, "")
    fix = f"pass the folder (--data-dir FOLDER, data_dir=) or set {ENVIRONMENT}; it may hold {_LAYOUTS[name]}"
    if not given:
        raise problem("D002", f"{name} is read from files, and no data folder is given", fix)
    folder = Path(os.path.expanduser(given))
    if not os.path.isdir(folder):
        found = "is not a folder" if os.path.exists(folder) else "does not exist"
        raise problem("D002", f"the data folder for {name} {found}", fix, folder)
    return folder


def _digits() -> Parts:
    purpose = "the data set digits"
    datasets = optional("sklearn.datasets", "scikit-learn", purpose)
    selection = optional("sklearn.model_selection", "scikit-learn", purpose)
    bundle = datasets.load_digits()
    # its pixels count from 0 to 16
    images = (np.asarray(bundle.images) / 16).astype(np.float32)
    labels = np.asarray(bundle.target).astype(np.int64)
    train, test = selection.train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    return Parts(images[train], labels[train], images[test], labels[test], classes=10)


def held_out(count: int, validation: int, seed: int) -> tuple[Array, Array | slice]:
    """The indices held out, and what stays; both in the order of the files."""
    if not 0 <= validation < count:
        raise problem(
            "D011", f"{validation} validation images of {count} training images",
            f"hold out 0 to {count - 1} images",
        )  # fmt: skip
    if seed < 0:
        raise problem("D011", f"the seed is {seed}", "use a seed of 0 or more")
    if validation == 0:
        return np.empty(0, np.int64), slice(None)
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[:validation]), np.sort(order[validation:])


def _accepted(sample: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The shapes a model may take such a sample in."""
    if len(sample) == 1:
        return [sample]
    height, width, channels = sample if len(sample) == 3 else (*sample, 1)
    shapes: list[tuple[int, ...]] = [(math.prod(sample),), (channels, height, width)]
    return shapes if channels > 1 else [*shapes, (height, width)]


def _misfit(name: str, sample: tuple[int, ...], wanted: tuple[int, ...]) -> Exception:
    values = str(math.prod(sample))
    if len(sample) > 1:
        values += f" = {'x'.join(str(n) for n in sample)}"
    fitting = [other for other, shape in _SAMPLES.items() if other != name and wanted in _accepted(shape)]
    use = f"use {' or '.join(f'--data {other}' for other in fitting)}, or " if fitting else ""
    takes = _accepted(sample)
    same_rank = [shape for shape in takes if len(shape) == len(wanted)] or takes
    return problem(
        "D010", f"the model takes {wanted}, {name} images have {values} values",
        f"{use}change the model's first layer to take {' or '.join(map(str, same_rank))}",
    )  # fmt: skip
