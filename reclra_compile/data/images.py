"""Image files: one decoded with Pillow, and data sets kept as folders of images, one per class."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reclra_compile.data.faults import optional, problem, why
from reclra_compile.data.readers import Array, Parts, not_found

SUFFIXES = (".png", ".jpg", ".jpeg", ".pgm", ".ppm")

FORMATS = ("PNG", "JPEG", "PPM")
_GREY = ("1", "L", "LA", "La")
#: more than 8 bits a channel, which a conversion would clip without a word
_DEEP = ("I", "F")


class Sample(NamedTuple):
    """An image file and its class."""

    file: str
    label: int


class _Header(NamedTuple):
    size: tuple[int, int]
    grey: bool


def pillow(purpose: str) -> Any:
    """Pillow's Image module, or an error that says how to install it."""
    return optional("PIL.Image", "pillow", purpose)


def decode_jpeg(image: Any, data: bytes, mode: str) -> Array:
    """One JPEG as uint8 pixels; `image` is Pillow's Image module; raises what Pillow raises."""
    with image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
        return np.asarray(opened.convert(mode))


def read_folder(folder: Path) -> Parts:
    """A data set from `train` and `test` (or `val`) folders with one folder of images per class."""
    held_out = "test" if os.path.isdir(folder / "test") else "val"
    train, test = folder / "train", folder / held_out
    if not (os.path.isdir(train) and os.path.isdir(test)):
        raise not_found(
            "folder", folder, [str(train), f"{folder / 'test'} or {folder / 'val'}"],
            "the images as {train,test}/CLASS/*.{png,jpg,jpeg,pgm,ppm}",
        )  # fmt: skip
    names = [path.name for path in class_folders(train)]
    found = {part: samples(part, names) for part in (train, test)}
    image = pillow("a folder of images")
    headers = {s.file: _header(image, s.file) for part in found.values() for s in part}
    _check_one_size(headers)
    mode = "L" if all(h.grey for h in headers.values()) else "RGB"
    size = next(iter(headers.values())).size
    x = {part: _pixels(image, [s.file for s in found[part]], size, mode) for part in found}
    y = {part: np.array([s.label for s in found[part]], np.int64) for part in found}
    return Parts(x[train], y[train], x[test], y[test], len(names))


def _listing(folder: Path) -> list[Path]:
    """What a folder holds, sorted so that labels and order are the same on every machine."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise _unlisted(folder, error) from error


def _unlisted(folder: Path, error: OSError) -> Exception:
    return problem("D004", f"cannot list: {why(error)}", "make the folder readable", folder)


def class_folders(part: Path) -> list[Path]:
    """The folders of a part in their sorted order, one for each class; raises DataError (D004, D008)."""
    found = [path for path in _listing(part) if os.path.isdir(path)]
    if not found:
        raise problem(
            "D008", "no class folders; expected one folder of images for each class",
            f"put the images into {part / 'CLASS'}", part,
        )  # fmt: skip
    return found


def samples(part: Path, names: Sequence[str]) -> list[Sample]:
    """All images of a part, by class and name; raises DataError (D004, D008)."""
    labels = {name: k for k, name in enumerate(names)}
    found: list[Sample] = []
    for folder in class_folders(part):
        if folder.name not in labels:
            raise problem(
                "D008", f"the class '{folder.name}' has no folder in train, which has {', '.join(names)}",
                "give it training images, or remove the folder", folder,
            )  # fmt: skip
        files = _image_files(folder)
        if not files:
            raise problem(
                "D008", f"no images; expected files that end in {', '.join(SUFFIXES)}",
                "put images of the class here, or remove the folder", folder,
            )  # fmt: skip
        found += [Sample(file, labels[folder.name]) for file in files]
    return found


def _image_files(folder: Path) -> list[str]:
    """Sorted; read with scandir, which tells files from folders without a look at each of a million."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                e.path for e in entries
                if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".") and e.is_file()
            )  # fmt: skip
    except OSError as error:
        raise _unlisted(folder, error) from error


def _header(image: Any, file: str) -> _Header:
    try:
        with image.open(file, formats=FORMATS) as opened:
            size, mode = opened.size, opened.mode
    # Pillow's decoders raise OSError, SyntaxError, ValueError and more on damaged files
    except Exception as error:
        raise corrupt(file, error) from error
    check_depth(mode, file)
    return _Header(size, mode in _GREY)


def check_depth(mode: str, file: str) -> None:
    """Raise DataError (D008) for an image whose pixels a conversion would clip."""
    if mode.startswith(_DEEP):
        raise problem(
            "D008", f"the pixels have more than 8 bits (mode {mode}); expected 8 bits a channel",
            "convert the image to 8 bits a channel", file,
        )  # fmt: skip


def corrupt(file: str, error: Exception) -> Exception:
    """The error for a file that Pillow cannot make an image of."""
    return problem(
        "D008", f"cannot decode the image: {why(error)}",
        "replace or remove the file; PNG, JPEG, PGM and PPM are understood", file,
    )  # fmt: skip


def _check_one_size(headers: dict[str, _Header]) -> None:
    sizes = [header.size for header in headers.values()]
    # the size most images have is the expected one, so that a single odd file is the one named
    usual = max(sorted(set(sizes)), key=sizes.count)
    odd = [file for file, header in headers.items() if header.size != usual]
    if odd:
        width, height = headers[odd[0]].size
        more = f" ({len(odd)} files differ)" if len(odd) > 1 else ""
        raise problem(
            "D008", f"the image is {width}x{height}; expected {usual[0]}x{usual[1]} as in most files{more}",
            "resize or remove it: all images must have one size", odd[0],
        )  # fmt: skip


def _pixels(image: Any, files: Sequence[str], size: tuple[int, int], mode: str) -> Array:
    width, height = size
    shape = (len(files), height, width) + ((3,) if mode == "RGB" else ())
    try:
        pixels = np.empty(shape, np.uint8)
    except MemoryError as error:
        need = f"{len(files)} images of {width}x{height} do not fit into memory"
        raise problem("D008", need, "make the images smaller or use fewer") from error
    for row, file in enumerate(files):
        try:
            with image.open(file, formats=FORMATS) as opened:
                pixels[row] = np.asarray(opened.convert(mode))
        # as in _header
        except Exception as error:
            raise corrupt(file, error) from error
    return pixels
