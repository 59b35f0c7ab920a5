"""Array files: `.npz` in the Keras layout and IDX, and the checks that every layout shares."""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reclra_compile.data.faults import problem, why

Array = NDArray[Any]

KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")
REPLACE = "replace the file with an intact copy"
RELABEL = "number the classes from 0 without gaps and store one integer per image"

_IDX_STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_IDX_PATTERN = "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"
_TORCHVISION_NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


class Parts(NamedTuple):
    """A data set as it is stored: training and test images with their labels."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    classes: int


def checked_images(images: Array, file: Path, what: str) -> Array:
    """The images as uint8, or as float32 in [0, 1]; anything else is an error."""
    shape = images.shape
    if images.ndim not in (2, 3, 4) or 0 in shape:
        raise problem(
            "D005", f"{what} has the shape {shape}; expected N x H x W, N x H x W x C or N x features",
            "store one image per row of the array", file,
        )  # fmt: skip
    if images.ndim == 4 and shape[3] not in (1, 3, 4):
        raise problem(
            "D005", f"{what} has the shape {shape}; expected channels (1, 3 or 4) in the last place",
            "store it as N x H x W x C, for example with transpose(0, 2, 3, 1)", file,
        )  # fmt: skip
    if images.dtype == np.uint8:
        return images
    top = 1 if np.issubdtype(images.dtype, np.floating) else 255
    numeric = top == 1 or np.issubdtype(images.dtype, np.integer)
    # written so that NaN, which compares false with everything, is refused
    if not numeric or not (images.min() >= 0 and images.max() <= top):
        found = f"{images.dtype} from {images.min()} to {images.max()}" if numeric else f"{images.dtype}"
        raise problem(
            "D005", f"{what} is {found}; expected uint8 from 0 to 255 or floats from 0 to 1",
            "convert the images, for example x.astype('uint8')", file,
        )  # fmt: skip
    return images.astype(np.float32 if top == 1 else np.uint8)


def checked_labels(labels: Array, count: int, classes: int, file: Path, what: str) -> Array:
    """The labels as int64, one for each of `count` images and each below `classes`."""
    # Keras keeps CIFAR labels as one column
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or not np.issubdtype(flat.dtype, np.integer):
        found = f"{labels.dtype} of shape {labels.shape}"
        raise problem("D005", f"{what} is {found}; expected {count} integers", RELABEL, file)
    if len(flat) != count:
        raise problem(
            "D006", f"{what} has {len(flat)} labels for {count} images",
            "take images and labels from the same release of the data set", file,
        )  # fmt: skip
    wrong = np.flatnonzero((flat < 0) | (flat >= classes))
    if len(wrong):
        first = int(wrong[0])
        found = f"{what} has the label {flat[first]} at index {first}"
        more = f" and {len(wrong) - 1} more out of range" if len(wrong) > 1 else ""
        raise problem("D007", f"{found}{more}; expected 0 to {classes - 1}", RELABEL, file)
    return flat.astype(np.int64)


def checked_parts(arrays: Mapping[str, Array], files: Mapping[str, Path], classes: int) -> Parts:
    """Train and test, checked each and against each other; `files` names each array's file."""
    done: dict[str, Array] = {}
    for part in ("train", "test"):
        x, y = f"x_{part}", f"y_{part}"
        done[x] = checked_images(arrays[x], files[x], x)
        done[y] = checked_labels(arrays[y], len(done[x]), classes, files[y], y)
    train, test = done["x_train"].shape[1:], done["x_test"].shape[1:]
    if train != test:
        raise problem(
            "D005", f"test images have the shape {test}, training images {train}",
            "store both with the same height, width and channels", files["x_test"],
        )  # fmt: skip
    return Parts(done["x_train"], done["y_train"], done["x_test"], done["y_test"], classes)


class Npz:
    """An open `.npz` file whose every failure is a data error; nothing is ever unpickled."""

    def __init__(self, file: Path, members: Any) -> None:
        self.file = file
        self.keys: tuple[str, ...] = tuple(members.files)
        self._members = members

    def has(self, keys: Sequence[str]) -> bool:
        """Whether the file holds all these arrays."""
        return set(keys) <= set(self.keys)

    def array(self, key: str) -> Array:
        """One array of the file."""
        try:
            value = self._members[key]
        # a damaged member raises whatever zip, zlib, tokenize or numpy's header parser stumbles over
        except Exception as error:
            if "allow_pickle" in str(error):
                raise problem(
                    "D005", f"{key} is an array of Python objects, which is never loaded",
                    "save it as plain numbers: np.asarray(x, dtype='uint8')", self.file,
                ) from error  # fmt: skip
            raise problem("D004", f"cannot read {key}: {why(error)}", REPLACE, self.file) from error
        if not isinstance(value, np.ndarray):
            raise problem("D005", f"{key} is not a numpy array", "write the file with np.savez", self.file)
        return value


@contextlib.contextmanager
def open_npz(file: Path) -> Iterator[Npz]:
    """Open an `.npz` file for reading arrays one at a time."""
    with contextlib.ExitStack() as stack:
        try:
            # opened here because numpy leaves a file open that it cannot make sense of
            stream = stack.enter_context(file.open("rb"))
            archive = stream.read(2) == b"PK" and zipfile.is_zipfile(stream)
            stream.seek(0)
            # numpy takes whatever is no archive for a pickle and says so, which would mislead
            members = stack.enter_context(np.load(stream, allow_pickle=False)) if archive else None
        # a damaged directory raises BadZipFile, OSError, struct.error, NotImplementedError and more
        except Exception as error:
            raise problem("D004", f"cannot open: {why(error)}", REPLACE, file) from error
        if members is None:
            raise problem("D004", "no .npz (zip) archive, or only the start of one", REPLACE, file)
        yield Npz(file, members)


def keras_arrays(npz: Npz, layouts: str = "") -> dict[str, Array]:
    """The four arrays of the Keras layout; `layouts` names what else the file might have held."""
    missing = [key for key in KERAS_KEYS if key not in npz.keys]
    if missing:
        found = ", ".join(npz.keys) or "nothing"
        raise problem(
            "D005", f"no {', '.join(missing)}; found {found}",
            f"store the arrays {', '.join(KERAS_KEYS)}{layouts}", npz.file,
        )  # fmt: skip
    return {key: npz.array(key) for key in KERAS_KEYS}


def read_idx(file: Path, dimensions: int) -> Array:
    """An IDX file of unsigned bytes with that many dimensions, gzipped where it ends in .gz."""
    raw = read_bytes(file)
    magic, header = 0x0800 + dimensions, 4 + 4 * dimensions
    if len(raw) < header:
        raise problem("D004", f"{len(raw)} bytes; expected an IDX header of {header}", REPLACE, file)
    found = int.from_bytes(raw[:4], "big")
    if found != magic:
        raise problem(
            "D005", f"the magic number is 0x{found:08x}; expected 0x{magic:08x}",
            "put the IDX file of unsigned bytes here that the name says: images are idx3, labels idx1", file,
        )  # fmt: skip
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, header, 4))
    if len(raw) - header != math.prod(shape):
        size = " x ".join(str(n) for n in shape)
        expected = f"expected {math.prod(shape)} = {size}"
        raise problem("D004", f"{len(raw) - header} bytes after the header; {expected}", REPLACE, file)
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def read_bytes(file: Path) -> bytes:
    """A whole file, unpacked where its name ends in .gz."""
    try:
        if file.suffix != ".gz":
            return file.read_bytes()
        with gzip.open(file) as stream:
            return stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise problem("D004", f"cannot read: {why(error)}", REPLACE, file) from error


def first_file(candidates: Sequence[Path]) -> Path | None:
    """The first of these that is a file; one in a folder that may not be entered counts as absent."""
    return next((path for path in candidates if os.path.isfile(path)), None)


def npz_paths(folder: Path, name: str) -> list[Path]:
    """Where a data set's `.npz` file may lie."""
    return [folder / f"{name}.npz", folder / name / f"{name}.npz"]


def read_mnist_like(folder: Path, name: str) -> Parts:
    """MNIST or Fashion-MNIST from any of the layouts understood."""
    file = first_file(npz_paths(folder, name))
    if file is not None:
        with open_npz(file) as npz:
            return checked_parts(keras_arrays(npz), dict.fromkeys(KERAS_KEYS, file), classes=10)
    # both sets use the same file names, so a folder that says which set it holds goes first
    folders = [folder / name, folder / _TORCHVISION_NAMES[name] / "raw", folder]
    for place in folders:
        found = dict(zip(KERAS_KEYS, (_idx_file(place, stem) for stem in _IDX_STEMS), strict=True))
        files = {key: path for key, path in found.items() if path is not None}
        if len(files) == len(found):
            arrays = {key: read_idx(path, 3 if key.startswith("x") else 1) for key, path in files.items()}
            return checked_parts(arrays, files, classes=10)
    raise _absent(name, folder, folders)


def _idx_file(folder: Path, stem: str) -> Path | None:
    dotted = stem.replace("-idx", ".idx")
    return first_file([folder / f"{s}-ubyte{end}" for s in (stem, dotted) for end in ("", ".gz")])


def _absent(name: str, folder: Path, folders: Sequence[Path]) -> Exception:
    tried = [str(path) for path in npz_paths(folder, name)]
    tried += [str(place / _IDX_PATTERN) for place in folders]
    for place in folders:
        missing = [f"{stem}-ubyte" for stem in _IDX_STEMS if _idx_file(place, stem) is None]
        if len(missing) < len(_IDX_STEMS):
            tried.append(f"({place} has some of the four IDX files, but no {', '.join(missing)})")
    return not_found(name, folder, tried, f"{name}.npz or the four IDX files")


def not_found(name: str, folder: Path, tried: Sequence[str], wanted: str) -> Exception:
    """The error for a data folder without the set's files, with every path tried."""
    listing = "\n    ".join(tried)
    return problem(
        "D003", f"no {name} files; tried\n    {listing}",
        f"put {wanted} into one of these places (nothing is downloaded), or pass another folder", folder,
    )  # fmt: skip
