"""Data sets: every layout read, every malformed input refused, and the reshape to a model's input."""

from __future__ import annotations

import gzip
import io
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reclra_compile.data import cifar
from reclra_compile.data.sets import CODES, NAMES, DataSet, batches, describe, load
from reclra_compile.errors import DataError

REAL = os.environ.get("RECLRA_DATA", "")
IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("RECLRA_DATA", raising=False)


def arrays(*sample: int, n: int = 20, classes: int = 10) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    made: dict[str, Any] = {}
    for part, count in (("train", n), ("test", n // 2)):
        made[f"x_{part}"] = rng.integers(0, 256, (count, *sample), np.uint8)
        made[f"y_{part}"] = (np.arange(count) % classes).astype(np.uint8)
    return made


def save(file: Path, **changes: Any) -> Path:
    """A small Keras-layout file; a change of None leaves the array out."""
    every = {**arrays(*((32, 32, 3) if "cifar" in file.name else (28, 28))), **changes}
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **{key: x for key, x in every.items() if x is not None})
    return file.parent


def idx(x: np.ndarray) -> bytes:
    return struct.pack(f">I{x.ndim}I", 0x0800 + x.ndim, *x.shape) + x.tobytes()


def save_idx(folder: Path, end: str = "", dotted: bool = False, **changes: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (key, x) in zip(IDX, arrays(28, 28).items(), strict=True):
        raw = changes.get(key, idx(x))
        name = name.replace("-idx", ".idx") if dotted else name
        (folder / f"{name}{end}").write_bytes(gzip.compress(raw) if end else raw)


def jpeg(x: np.ndarray) -> bytes:
    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image.fromarray(x).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def save_packed(folder: Path, n: int = 6, **changes: Any) -> Path:
    made: dict[str, Any] = {}
    for part, shade in (("train", 40), ("test", 200)):
        files = [jpeg(np.full((32, 32, 3), shade + i, np.uint8)) for i in range(n)]
        made[f"jpeg_{part}"] = np.frombuffer(b"".join(files), np.uint8)
        made[f"offsets_{part}"] = np.cumsum([0, *map(len, files)], dtype=np.int64)
        made[f"y_{part}"] = np.arange(n, dtype=np.uint8)
    np.savez(folder / "cifar10.npz", **{**made, **changes})
    return folder


def save_images(folder: Path, kind: str = "png", test: str = "test", shape: tuple[int, ...] = (5, 4)) -> Path:
    image = pytest.importorskip("PIL.Image")
    for part, count in (("train", 3), (test, 2)):
        for label, name in enumerate(("cat", "dog")):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = np.full(shape, 100 * label + i, np.uint8)
                image.fromarray(pixels).save(folder / part / name / f"{i}.{kind}")
    return folder


def refused(code: str, *words: str, call: Callable[[], object]) -> DataError:
    with pytest.raises(DataError) as caught:
        call()
    (fault,) = caught.value.faults
    assert fault.code == code and code in CODES, caught.value
    assert fault.fix
    for word in words:
        assert word in str(caught.value), (word, caught.value)
    return caught.value


# -- what can be read -------------------------------------------------------------------------------


def test_digits_are_complete_stratified_and_the_same_each_time() -> None:
    first, again = load("digits"), load("digits", seed=3)
    assert len(first.x_train) + len(first.x_test) == 1797 and len(first.x_valid) == 0
    assert np.array_equal(first.x_test, again.x_test) and first.classes == 10
    assert first.x_train.dtype == np.float32 and first.x_train.max() == 1 and first.y_test.dtype == np.int64
    share = [
        (first.y_test == c).sum() / ((first.y_train == c).sum() + (first.y_test == c).sum())
        for c in range(10)
    ]
    assert max(abs(s - 0.2) for s in share) < 0.01


@pytest.mark.parametrize("place", ["{n}.npz", "{n}/{n}.npz"])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_keras_layout(tmp_path: Path, name: str, place: str) -> None:
    save(tmp_path / place.format(n=name))
    data, expected = load(name, tmp_path), arrays(*((32, 32, 3) if name == "cifar10" else (28, 28)))
    for key, x in expected.items():
        assert np.array_equal(getattr(data, key), x)
    assert data.y_train.dtype == np.int64 and len(data.x_valid) == len(data.y_valid) == 0


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("place", [".", "mnist", "MNIST/raw"])
def test_idx_layout(tmp_path: Path, place: str, end: str, dotted: bool) -> None:
    save_idx(tmp_path / place, end, dotted)
    data = load("mnist", tmp_path)
    for key, x in arrays(28, 28).items():
        assert np.array_equal(getattr(data, key), x)
    if place != ".":
        refused("D003", "FashionMNIST/raw", call=lambda: load("fashion_mnist", tmp_path))


def test_a_folder_that_names_the_set_goes_before_loose_idx_files(tmp_path: Path) -> None:
    save_idx(tmp_path, x_train=b"another set's, and damaged")
    save_idx(tmp_path / "FashionMNIST" / "raw")
    assert len(load("fashion_mnist", tmp_path).x_train) == 20


def test_cifar_binary(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 32 * 32).astype(np.uint8).reshape(2, -1)
    raw = np.hstack([np.array([[3], [9]], np.uint8), pixels]).tobytes()
    (tmp_path / "cifar-10-batches-bin").mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (tmp_path / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(raw)
    data = load("cifar10", tmp_path)
    assert data.x_train.shape == (10, 32, 32, 3) and list(data.y_test) == [3, 9]
    assert np.array_equal(
        data.as_tensors("test", (3, 32, 32))[0].numpy().reshape(2, -1), pixels / np.float32(255)
    )
    last = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    last.write_bytes(raw[:-1])
    refused("D004", "test_batch.bin", "6145", "3073", call=lambda: load("cifar10", tmp_path))
    last.write_bytes(b"\x0a" + raw[1:])
    refused("D007", "label 10 at index 0", call=lambda: load("cifar10", tmp_path))
    last.unlink()
    refused("D003", "test_batch.bin", call=lambda: load("cifar10", tmp_path))


def test_packed_jpegs_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_packed(tmp_path)
    first = load("cifar10", tmp_path)
    assert abs(first.x_train[:, 0, 0, 0].astype(int) - np.arange(40, 46)).max() <= 2
    (kept,) = Path(os.environ["XDG_CACHE_HOME"], "reclra-compile").iterdir()
    with monkeypatch.context() as without:
        without.setattr(cifar, "decode_jpeg", None)
        assert np.array_equal(load("cifar10", tmp_path).x_test, first.x_test)
    kept.write_bytes(b"damaged")
    assert np.array_equal(load("cifar10", tmp_path).x_test, first.x_test)
    os.utime(tmp_path / "cifar10.npz", (1, 1))
    load("cifar10", tmp_path)
    assert len(list(kept.parent.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load("cifar10", save_packed(tmp_path)).x_train) == 6


@pytest.mark.parametrize("kind", ["png", "PNG", "jpg", "jpeg", "pgm"])
def test_folder_of_grey_images(tmp_path: Path, kind: str) -> None:
    data = load("folder", save_images(tmp_path, kind, test="val"))
    assert data.x_train.shape == (6, 5, 4) and data.x_test.shape == (4, 5, 4) and data.classes == 2
    assert list(data.y_train) == [0, 0, 0, 1, 1, 1] and data.x_train[3].max() >= 98


def test_one_colour_image_makes_the_folder_colour(tmp_path: Path) -> None:
    save_images(tmp_path)
    save_images(tmp_path, "ppm", shape=(5, 4, 3))
    assert load("folder", tmp_path).x_train.shape == (12, 5, 4, 3)


# -- what is refused --------------------------------------------------------------------------------


def test_names() -> None:
    assert NAMES == ("digits", "mnist", "fashion_mnist", "cifar10", "folder")
    assert all(describe(name) and "\n" not in describe(name) for name in NAMES)
    refused("D001", "mnits", "did you mean 'mnist'?", call=lambda: load("mnits"))


def test_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("D002", "RECLRA_DATA", "--data-dir", "mnist.npz", "MNIST/raw", call=lambda: load("mnist"))
    refused("D002", "does not exist", call=lambda: load("cifar10", tmp_path / "no"))
    monkeypatch.setenv("RECLRA_DATA", str(save(tmp_path / "mnist.npz")))
    assert load("mnist").name == "mnist"
    refused("D002", "is not a folder", call=lambda: load("mnist", tmp_path / "mnist.npz"))


def test_every_path_tried_is_listed(tmp_path: Path) -> None:
    expected = ["mnist.npz", "mnist/mnist.npz", "mnist/{", "MNIST/raw/{"]
    refused("D003", *(str(tmp_path / p) for p in expected), call=lambda: load("mnist", tmp_path))
    save_idx(tmp_path)
    (tmp_path / IDX[3]).unlink()
    refused("D003", f"but no {IDX[3]}", call=lambda: load("mnist", tmp_path))
    (tmp_path / "cifar-10-batches-py").mkdir()
    refused(
        "D003", "cifar10.npz", "cifar-10-batches-bin", "never opened", call=lambda: load("cifar10", tmp_path)
    )
    refused("D003", str(tmp_path / "train"), call=lambda: load("folder", tmp_path))


@pytest.mark.parametrize(
    ("code", "words", "changes"),
    [
        ("D005", ["no y_test", "x_train"], {"y_test": None}),
        ("D005", ["Python objects"], {"y_train": np.array([object()] * 20)}),
        ("D005", ["shape (20,)"], {"x_train": np.zeros(20, np.uint8)}),
        ("D005", ["shape (0, 28, 28)"], {"x_train": np.zeros((0, 28, 28), np.uint8)}),
        ("D005", ["transpose"], {"x_train": np.zeros((20, 3, 28, 28), np.uint8)}),
        ("D005", ["test images", "(27, 28)"], {"x_test": np.zeros((10, 27, 28), np.uint8)}),
        ("D005", ["0.0 to 255.0"], {"x_train": np.linspace(0, 255, 20 * 784).reshape(20, 28, 28)}),
        ("D005", ["nan"], {"x_train": np.full((20, 28, 28), np.nan)}),
        ("D005", ["-1"], {"x_train": np.full((20, 28, 28), -1)}),
        ("D005", ["<U1"], {"x_train": np.full((20, 28, 28), "a")}),
        ("D005", ["float64"], {"y_train": np.zeros(20)}),
        ("D005", ["(20, 10)"], {"y_train": np.zeros((20, 10), np.int64)}),
        ("D006", ["19 labels for 20"], {"y_train": np.zeros(19, np.int64)}),
        ("D007", ["label 10 at index 0", "19 more", "0 to 9"], {"y_train": np.full(20, 10)}),
        ("D007", ["label -1 at index 9"], {"y_test": np.r_[np.zeros(9, int), -1]}),
        ("D007", ["label 18446744073709551615"], {"y_test": np.array([0] * 9 + [2**64 - 1], np.uint64)}),
    ],
)
def test_npz_content(tmp_path: Path, code: str, words: list[str], changes: dict[str, Any]) -> None:
    save(tmp_path / "mnist.npz", **changes)
    refused(code, "mnist.npz", *words, call=lambda: load("mnist", tmp_path))


def test_accepted_variants_of_npz_content(tmp_path: Path) -> None:
    half, column = np.full((20, 28, 28), 0.5), (np.arange(20) % 10)[:, None]
    save(tmp_path / "mnist.npz", x_train=half, y_train=column, x_test=np.full((10, 28, 28), 255))
    data = load("mnist", tmp_path)
    assert data.x_train.dtype == np.float32 and data.x_test.dtype == np.uint8 and data.y_train.shape == (20,)


def test_damaged_npz(tmp_path: Path) -> None:
    file = save(tmp_path / "mnist.npz") / "mnist.npz"
    whole = file.read_bytes()
    for raw in (b"", b"no archive", whole[: len(whole) // 2], whole[-200:]):
        file.write_bytes(raw)
        refused("D004", "mnist.npz", call=lambda: load("mnist", tmp_path))
    rng = np.random.default_rng(0)
    for _ in range(150):
        noisy = bytearray(whole)
        for at in rng.choice([*range(200), *range(len(raw) - 400, len(raw))], 3):
            noisy[at] = rng.integers(256)
        file.write_bytes(noisy)
        try:
            load("mnist", tmp_path)
        except DataError as error:
            assert error.faults[0].fix
    with zipfile.ZipFile(file, "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(key, b"text")
    refused("D005", "not a numpy array", call=lambda: load("mnist", tmp_path))


@pytest.mark.parametrize(
    ("code", "words", "raw"),
    [
        ("D004", ["7 bytes", "16"], b"\0\0\x08\x03\0\0\0"),
        ("D005", ["0x00000801", "0x00000803"], idx(np.zeros(20, np.uint8)) + bytes(8)),
        ("D004", ["15679 bytes", "15680 = 20 x 28 x 28"], idx(np.zeros((20, 28, 28), np.uint8))[:-1]),
        ("D004", ["15681 bytes"], idx(np.zeros((20, 28, 28), np.uint8)) + b"\0"),
        ("D004", ["0 bytes after"], struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1)),
        ("D005", ["shape (0, 28, 28)"], idx(np.zeros((0, 28, 28), np.uint8))),
        ("D006", ["20 labels for 19"], idx(np.zeros((19, 28, 28), np.uint8))),
    ],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_content(tmp_path: Path, code: str, words: list[str], raw: bytes, end: str) -> None:
    save_idx(tmp_path, end, x_train=raw)
    refused(code, "train-", *words, call=lambda: load("mnist", tmp_path))


def test_damaged_gzip_and_idx_labels(tmp_path: Path) -> None:
    save_idx(tmp_path, ".gz", y_test=idx(np.full(10, 11, np.uint8)))
    refused("D007", "t10k-labels", "label 11", call=lambda: load("mnist", tmp_path))
    for raw in (
        b"plain",
        (tmp_path / f"{IDX[0]}.gz").read_bytes()[:-30],
        gzip.compress(b"abc" * 99)[:12] + b"\xff" * 9,
    ):
        (tmp_path / f"{IDX[0]}.gz").write_bytes(raw)
        refused("D004", f"{IDX[0]}.gz", "cannot read", call=lambda: load("mnist", tmp_path))


@pytest.mark.parametrize(
    ("code", "words", "changes"),
    [
        ("D005", ["float64"], {"offsets_train": np.zeros(7)}),
        ("D005", ["does not rise"], {"offsets_train": np.zeros(7, np.uint64)}),
        ("D005", ["offsets_test ends at 10"], {"offsets_test": np.arange(4, 11) * 10**6}),
        ("D006", ["y_train has 5"], {"y_train": np.zeros(5, int)}),
        ("D007", ["label 12"], {"y_train": np.full(6, 12)}),
        ("D005", ["jpeg_train is float64"], {"jpeg_train": np.zeros(9)}),
        ("D008", ["image 0 of jpeg_train"], {"jpeg_train": np.zeros(10**5, np.uint8)}),
    ],
)
def test_packed_content(tmp_path: Path, code: str, words: list[str], changes: dict[str, Any]) -> None:
    save_packed(tmp_path, **changes)
    refused(code, "cifar10.npz", *words, call=lambda: load("cifar10", tmp_path))


def test_a_packed_image_that_is_cut(tmp_path: Path) -> None:
    with np.load(save_packed(tmp_path) / "cifar10.npz") as whole:
        offsets = whole["offsets_train"]
    offsets[-1] -= 300
    save_packed(tmp_path, offsets_train=offsets)
    refused("D008", "image 5 of jpeg_train", call=lambda: load("cifar10", tmp_path))


def test_packed_images_of_two_sizes(tmp_path: Path) -> None:
    files = [jpeg(np.zeros((32, side, 3), np.uint8)) for side in (32, 30)]
    changes: dict[str, Any] = {
        "jpeg_test": np.frombuffer(b"".join(files), np.uint8),
        "y_test": np.zeros(2, int),
    }
    save_packed(tmp_path, offsets_test=np.cumsum([0, *map(len, files)]), **changes)
    refused("D008", "image 1", "(32, 30, 3)", call=lambda: load("cifar10", tmp_path))


def test_folder_content(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    save_images(tmp_path)
    odd = tmp_path / "train" / "dog" / "9.png"
    image.fromarray(np.zeros((6, 4), np.uint8)).save(odd)
    refused("D008", str(odd), "4x6", "4x5", call=lambda: load("folder", tmp_path))
    image.fromarray(np.zeros((5, 4), np.uint16)).save(odd)
    refused("D008", str(odd), "8 bits", call=lambda: load("folder", tmp_path))
    whole = (tmp_path / "train" / "dog" / "0.png").read_bytes()
    for raw in (b"", b"text", whole[:30], whole[:50], b"P5 4 5 255 short"):
        odd.write_bytes(raw)
        refused("D008", str(odd), "cannot decode", call=lambda: load("folder", tmp_path))
    odd.unlink()
    (tmp_path / "train" / "dog" / "notes.txt").write_text("no image, and ignored")
    assert len(load("folder", tmp_path).x_train) == 6
    (tmp_path / "test" / "bird").mkdir()
    refused("D008", "'bird'", "cat, dog", call=lambda: load("folder", tmp_path))
    (tmp_path / "train" / "bird").mkdir()
    refused("D008", str(tmp_path / "train" / "bird"), "no images", call=lambda: load("folder", tmp_path))


def test_folder_without_classes(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    refused("D008", "no class folders", call=lambda: load("folder", tmp_path))


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_packed(save_images(tmp_path))
    for module in ("PIL", "PIL.Image", "sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    refused("D009", "pip install scikit-learn", call=lambda: load("digits"))
    refused("D009", "pip install pillow", call=lambda: load("cifar10", tmp_path))
    refused("D009", "pip install pillow", call=lambda: load("folder", tmp_path))


# -- validation, tensors, batches -------------------------------------------------------------------


def test_validation_is_held_out_of_training_only(tmp_path: Path) -> None:
    x = np.arange(200, dtype=np.uint8).reshape(200, 1, 1)
    save(tmp_path / "mnist.npz", x_train=x, y_train=x.ravel() % 10, x_test=x[:10])
    first, again, other = (load("mnist", tmp_path, validation=50, seed=s) for s in (4, 4, 5))
    valid, train = set(first.x_valid.ravel()), set(first.x_train.ravel())
    assert len(valid) == 50 and len(train) == 150 and not valid & train
    assert np.array_equal(first.x_valid, again.x_valid) and np.array_equal(first.y_train, again.y_train)
    assert not np.array_equal(first.x_valid, other.x_valid)
    assert np.array_equal(first.y_valid, first.x_valid.ravel() % 10) and len(first.x_test) == 10
    for wrong in (-1, 200, 999):
        refused("D011", str(wrong), "0 to 199", call=partial(load, "mnist", tmp_path, validation=wrong))
    refused("D011", "seed", call=lambda: load("digits", validation=1, seed=-1))


def data_set(*sample: int, name: str = "mnist") -> DataSet:
    x = np.random.default_rng(0).integers(0, 256, (3, *sample), np.uint8)
    y = np.arange(3)
    return DataSet(name, x, y, x[:0], y[:0], x, y, 10)


@pytest.mark.parametrize(
    ("sample", "wanted"),
    [
        ((28, 28), (784,)), ((28, 28), (28, 28)), ((28, 28), (1, 28, 28)), ((28, 28, 1), (28, 28)),
        ((32, 30, 3), (3, 32, 30)), ((32, 30, 3), (2880,)), ((28, 28, 1), (1, 28, 28)), ((7,), (7,)),
    ],
)  # fmt: skip
def test_samples_are_reshaped(sample: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    data = data_set(*sample)
    x, y = data.as_tensors("train", torch.Size(wanted))
    assert x.shape == (3, *wanted) and x.dtype == torch.float32 and y.dtype == torch.int64
    moved = np.moveaxis(data.x_train, -1, 1) if len(sample) == 3 else data.x_train
    assert np.array_equal(x.numpy().ravel(), moved.ravel() / np.float32(255))
    assert data.as_tensors("valid", wanted)[0].shape == (0, *wanted)


def test_changing_a_tensor_leaves_the_data_set_alone() -> None:
    data = load("digits")
    before = data.x_train.copy(), data.y_train.copy()
    for tensor in data.as_tensors("train", (8, 8)):
        tensor.zero_()
    assert np.array_equal(data.x_train, before[0]) and np.array_equal(data.y_train, before[1])


@pytest.mark.parametrize(
    ("sample", "wanted", "words"),
    [
        ((28, 28), (64,), ["(64,)", "mnist images have 784 = 28x28 values", "--data digits", "(784,)"]),
        ((28, 28), (3, 28, 28), ["(3, 28, 28)", "take (1, 28, 28)"]),
        ((28, 28), (3, 32, 32), ["--data cifar10"]),
        ((32, 32, 3), (32, 32, 3), ["take (3, 32, 32)"]),
        ((32, 32, 3), (32, 32), ["take (3072,) or (3, 32, 32)"]),
        ((28, 28), (), ["takes ()"]),
        ((28, 28), (1, 1, 28, 28), ["take (784,)"]),
        ((784,), (1, 28, 28), ["784 values", "take (784,)"]),
    ],
)
def test_samples_that_do_not_fit(sample: tuple[int, ...], wanted: tuple[int, ...], words: list[str]) -> None:
    refused("D010", *words, call=lambda: data_set(*sample).as_tensors("train", wanted))


def test_batches() -> None:
    def run(seed: int, drop_last: bool = False) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [b.tolist() for b in batches(10, 4, generator=generator, drop_last=drop_last)]

    assert [len(b) for b in run(0)] == [4, 4, 2] and sorted(i for b in run(0) for i in b) == list(range(10))
    assert run(0) == run(0) != run(1) and run(0, drop_last=True) == run(0)[:2]
    generator = torch.Generator()
    assert list(batches(0, 4, generator=generator, drop_last=True)) == []
    refused("D012", "0", call=lambda: batches(10, 0, generator=generator, drop_last=False))
    refused("D012", "at most 10", call=lambda: batches(10, 11, generator=generator, drop_last=True))


# -- real files -------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL, reason="RECLRA_DATA is not set: there are no real data sets to read")
@pytest.mark.parametrize(
    ("name", "counts", "sample"),
    [
        ("mnist", (59_000, 1000, 10_000), (1, 28, 28)),
        ("fashion_mnist", (59_000, 1000, 10_000), (1, 28, 28)),
        pytest.param("cifar10", (49_000, 1000, 10_000), (3, 32, 32), marks=pytest.mark.slow),
    ],
)
def test_real_sets(name: str, counts: tuple[int, int, int], sample: tuple[int, ...]) -> None:
    data = load(name, REAL, validation=1000)
    assert (len(data.x_train), len(data.x_valid), len(data.x_test)) == counts
    x, y = data.as_tensors("test", sample)
    assert x.shape == (counts[2], *sample) and 0 <= x.min() < x.max() <= 1
    assert torch.equal(torch.bincount(y) > 0, torch.ones(10, dtype=torch.bool))
