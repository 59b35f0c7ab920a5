"""CIFAR-10: an `.npz` of arrays or of packed JPEGs, or the binary version's record files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from reclra_compile.data.cache import cache_file, cached, keep
from reclra_compile.data.faults import problem, why
from reclra_compile.data.images import decode_jpeg, pillow
from reclra_compile.data.readers import (
    KERAS_KEYS,
    REPLACE,
    Array,
    Npz,
    Parts,
    checked_labels,
    checked_parts,
    first_file,
    keras_arrays,
    not_found,
    npz_paths,
    open_npz,
    read_bytes,
)

CLASSES = 10

_PACKED_KEYS = tuple(f"{kind}_{part}" for part in ("train", "test") for kind in ("jpeg", "offsets", "y"))
_BINARY = "cifar-10-batches-bin"
_TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST_FILE = "test_batch.bin"
_RECORD = 1 + 3 * 32 * 32
_REPACK = "store image i as the JPEG in bytes offsets[i] to offsets[i+1] of a uint8 buffer"


def read_cifar10(folder: Path) -> Parts:
    """CIFAR-10 from any of the layouts understood; the pickled version is never opened."""
    file = first_file(npz_paths(folder, "cifar10"))
    if file is not None:
        return _read_npz(file)
    folders = [folder / _BINARY, folder / "cifar10" / _BINARY, folder]
    for place in folders:
        if first_file([place / name for name in (*_TRAIN_FILES, _TEST_FILE)]):
            return _read_binary(place)
    tried = [str(path) for path in npz_paths(folder, "cifar10")]
    tried += [str(place / "{data_batch_1…5,test_batch}.bin") for place in folders]
    if os.path.isdir(folder / "cifar-10-batches-py"):
        tried.append(f"({folder / 'cifar-10-batches-py'} holds pickles, which are never opened)")
    raise not_found("cifar10", folder, tried, f"cifar10.npz or {_BINARY} (the binary version)")


def _read_npz(file: Path) -> Parts:
    with open_npz(file) as npz:
        # arrays, where both are there, are what the JPEGs were made from
        if npz.has(_PACKED_KEYS) and not npz.has(KERAS_KEYS):
            return _read_packed(npz)
        other = f", or {', '.join(_PACKED_KEYS)} with packed JPEGs"
        return checked_parts(keras_arrays(npz, other), dict.fromkeys(KERAS_KEYS, file), CLASSES)


def _read_binary(folder: Path) -> Parts:
    missing = [name for name in (*_TRAIN_FILES, _TEST_FILE) if not os.path.isfile(folder / name)]
    if missing:
        raise problem("D003", f"no {', '.join(missing)}", "unpack the whole binary version here", folder)
    batches = [_read_batch(folder / name) for name in _TRAIN_FILES]
    x_test, y_test = _read_batch(folder / _TEST_FILE)
    x_train, y_train = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return Parts(x_train, y_train, x_test, y_test, CLASSES)


def _read_batch(file: Path) -> tuple[Array, Array]:
    raw = read_bytes(file)
    if not raw or len(raw) % _RECORD:
        raise problem("D004", f"{len(raw)} bytes; expected a multiple of {_RECORD}, not 0", REPLACE, file)
    records = np.frombuffer(raw, np.uint8).reshape(-1, _RECORD)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, checked_labels(records[:, 0], len(records), CLASSES, file, "the records")


def _read_packed(npz: Npz) -> Parts:
    offsets = {part: _offsets(npz, part) for part in ("train", "test")}
    counts = {part: len(o) - 1 for part, o in offsets.items()}
    labels = {
        part: checked_labels(npz.array(f"y_{part}"), n, CLASSES, npz.file, f"y_{part}")
        for part, n in counts.items()
    }
    cache = _cache_file(npz.file, offsets)
    images = _cached(cache, counts)
    if images is None:
        image = pillow("a cifar10.npz of packed JPEGs")
        images = {part: _decoded(image, npz, part, o) for part, o in offsets.items()}
        keep(cache, {f"x_{part}": x for part, x in images.items()})
    arrays = {f"x_{part}": x for part, x in images.items()} | {f"y_{part}": y for part, y in labels.items()}
    return checked_parts(arrays, dict.fromkeys(KERAS_KEYS, npz.file), CLASSES)


def _offsets(npz: Npz, part: str) -> Array:
    offsets = npz.array(f"offsets_{part}")
    if offsets.ndim != 1 or len(offsets) < 2 or not np.issubdtype(offsets.dtype, np.integer):
        raise problem(
            "D005", f"offsets_{part} is {offsets.dtype} of shape {offsets.shape}; expected N + 1 integers",
            _REPACK, npz.file,
        )  # fmt: skip
    # compared, not subtracted: unsigned differences wrap round
    if offsets[0] < 0 or (offsets[1:] <= offsets[:-1]).any():
        raise problem("D005", f"offsets_{part} does not rise from 0 on", _REPACK, npz.file)
    return offsets


def _decoded(image: Any, npz: Npz, part: str, offsets: Array) -> Array:
    key = f"jpeg_{part}"
    buffer = npz.array(key)
    if buffer.ndim != 1 or buffer.dtype != np.uint8:
        found = f"{buffer.dtype} of shape {buffer.shape}"
        raise problem("D005", f"{key} is {found}; expected a row of uint8", _REPACK, npz.file)
    if offsets[-1] > len(buffer):
        found = f"{key} has {len(buffer)} bytes; offsets_{part} ends at {offsets[-1]}"
        raise problem("D005", found, REPLACE, npz.file)
    pixels: Array | None = None
    for i in range(len(offsets) - 1):
        try:
            one = decode_jpeg(image, buffer[int(offsets[i]) : int(offsets[i + 1])].tobytes(), "RGB")
            if pixels is None:
                pixels = np.empty((len(offsets) - 1, *one.shape), np.uint8)
        # Pillow's decoders raise OSError, SyntaxError, ValueError and more on damaged data
        except Exception as error:
            found = f"image {i} of {key} is no intact JPEG: {why(error)}"
            raise problem("D008", found, REPLACE, npz.file) from error
        if one.shape != pixels.shape[1:]:
            found = f"image {i} of {key} has the shape {one.shape}; expected {pixels.shape[1:]} as image 0"
            raise problem("D008", found, "store images of one size", npz.file)
        pixels[i] = one
    assert pixels is not None, "_offsets lets no empty part through"
    return pixels


def _cache_file(file: Path, offsets: dict[str, Array]) -> Path | None:
    """Where this file's decoded images are kept; None where there is no place for a cache."""
    try:
        stat = file.stat()
    except OSError:
        return None
    digest = hashlib.sha256(f"1 {stat.st_size} {stat.st_mtime_ns}".encode())
    for part in ("train", "test"):
        digest.update(np.ascontiguousarray(offsets[part], np.int64).tobytes())
    return cache_file(f"cifar10-{digest.hexdigest()[:24]}")


def _cached(cache: Path | None, counts: dict[str, int]) -> dict[str, Array] | None:
    """The decoded images of an earlier run; None where there are none or the cache is damaged."""
    kept = cached(cache, [f"x_{part}" for part in counts])
    if kept is None:
        return None
    images = {part: kept[f"x_{part}"] for part in counts}
    good = all(x.dtype == np.uint8 and x.ndim == 4 and len(x) == counts[part] for part, x in images.items())
    return images if good else None
