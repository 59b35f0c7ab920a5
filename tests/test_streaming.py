"""Images decoded batch by batch from folders: pixels, crops, threads, errors, and training on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from reclra_compile.cli.main import main
from reclra_compile.cli.training_view import TrainingView
from reclra_compile.data.imagefolder import ImageFolder, image_folder
from reclra_compile.data.stream import ATTEMPTS, DRAWS, Images, random_box
from reclra_compile.errors import DataError
from reclra_compile.frontend.example import Example
from reclra_compile.train.feed import chunks, feed

Image = pytest.importorskip("PIL.Image")

MODEL = """
import torch
from torch import nn

model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(196, {classes}))
example_inputs = torch.zeros(2, 3, 28, 28)
"""
SIZES = ((40, 30), (30, 64), (57, 33), (28, 28), (20, 16))


def picture(size: tuple[int, int], seed: int, tint: int = 0) -> Any:
    """A smooth image of (width, height), as photographs are."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 200, (4, 4, 3), np.uint8) + np.array([tint, 0, 0], np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def fill(folder: Path, classes: int = 2, test: str = "val") -> Path:
    """{train,val}/CLASS/*.JPEG in several sizes; classes differ in their colour."""
    for part, count in (("train", 6), (test, 4)):
        for label in range(classes):
            place = folder / part / f"n{label:03d}"
            place.mkdir(parents=True)
            for k in range(count):
                seed = 1000 * label + k + (500 if part == test else 0)
                picture(SIZES[k % len(SIZES)], seed, 50 * (label % 2)).save(place / f"{k}.JPEG", quality=95)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and a small data set."""
    monkeypatch.delenv("RECLRA_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(MODEL.format(classes=2))
    return fill(tmp_path / "data")


def part(data: ImageFolder, name: Any = "train", shape: tuple[int, ...] = (3, 28, 28)) -> tuple[Images, Tensor]:
    """Images and labels of a part for a model of such a shape."""
    (x,), y = data.split(name, Example((torch.zeros(1, *shape),), {}))
    assert isinstance(x, Images)
    return x, y


def drawn(x: Images, seed: int = 0, size: int = 5) -> Tensor:
    """One epoch of training images."""
    order = torch.arange(len(x)).split(size)
    return torch.cat([batch[0] for _, batch in feed((x,), order, torch.Generator().manual_seed(seed))])


def test_labels_are_the_sorted_folder_names_and_parts_are_complete(folder: Path) -> None:
    data = image_folder(folder)
    assert data.classes == 2
    assert [data.count(p) for p in ("train", "valid", "test")] == [12, 0, 8]  # type: ignore[arg-type]
    for name, inside in (("train", "train"), ("test", "val")):
        x, y = part(data, name)
        for file, label in zip(x.files, y.tolist(), strict=True):
            assert Path(file).parent.name == f"n{label:03d}" and Path(file).parent.parent.name == inside
    assert sorted(data.files["train"]) != data.files["train"], "the first images stand for all classes"
    held = image_folder(folder, validation=3)
    assert [held.count(p) for p in ("train", "valid", "test")] == [9, 3, 8]  # type: ignore[arg-type]
    assert sorted(held.files["train"] + held.files["valid"]) == sorted(data.files["train"])
    assert image_folder(folder, validation=3).files == held.files


def test_evaluation_cuts_the_centre_of_the_resized_image(folder: Path) -> None:
    x, _ = part(image_folder(folder), "test")
    pixels = x[torch.arange(len(x))]
    assert pixels.shape == (8, 3, 28, 28) and pixels.dtype == torch.float32
    for file, found in zip(x.files, pixels, strict=True):
        with Image.open(file) as opened:
            scale = 32 / min(opened.size)  # 32 for 28 as 256 for 224
            size = round(opened.width * scale), round(opened.height * scale)
            whole = np.asarray(opened.convert("RGB").resize(size, Image.Resampling.BILINEAR))
        top, left = (whole.shape[0] - 28) // 2, (whole.shape[1] - 28) // 2
        expected = whole[top : top + 28, left : left + 28].transpose(2, 0, 1) / np.float32(255)
        assert np.array_equal(found.numpy(), expected)


def test_slices_are_images_and_indices_are_pixels(folder: Path) -> None:
    x, _ = part(image_folder(folder))
    assert isinstance(x[2:5], Images) and len(x[2:5]) == 3
    assert torch.equal(x[2:5][torch.tensor([1])], x[torch.tensor([3])])
    whole = torch.cat([batch[0] for _, batch in chunks((x,), len(x), 5)])
    assert torch.equal(whole, x[torch.arange(len(x))])
    assert [rows for rows, _ in chunks((torch.zeros(7),), 7, 3)] == [slice(0, 3), slice(3, 6), slice(6, 7)]


def test_training_images_are_crops_that_depend_on_the_seed_and_not_on_the_threads(folder: Path) -> None:
    one, many = (part(image_folder(folder).treated("none", "resized_crop_flip", n))[0] for n in (1, 7))
    first = drawn(one)
    assert torch.equal(first, drawn(many))
    assert torch.equal(first, drawn(many, size=4)), "nor on how the draws fall into batches"
    assert not torch.equal(first, drawn(one, seed=1))
    generator = torch.Generator().manual_seed(0)
    epochs = [torch.cat([b[0] for _, b in feed((one,), torch.arange(12).split(5), generator)]) for _ in range(2)]
    assert torch.equal(epochs[0], first) and not torch.equal(epochs[1], first), "each epoch has crops of its own"
    centre = part(image_folder(folder).treated("none", "none", 2))[0]
    assert torch.equal(drawn(centre), one[torch.arange(12)])


def test_next_batch_is_begun_before_a_batch_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = part(image_folder(folder))
    begun: list[int] = []
    real = Images.start

    def start(self: Images, index: Tensor, generator: Any = None) -> Any:
        begun.append(len(index))
        return real(self, index, generator)

    monkeypatch.setattr(Images, "start", start)
    counts = [len(begun) for _ in feed((x,), torch.arange(12).split(5))]
    assert counts == [2, 3, 3]


def test_boxes_lie_inside_and_have_the_area_and_ratio_drawn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        width, height = (int(k) for k in rng.integers(20, 500, 2))
        left, top, right, bottom = random_box(width, height, rng.random(DRAWS).tolist())
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
    draws = [0.5, 0.5] * ATTEMPTS + [0.0, 0.999, 0.0]
    left, top, right, bottom = random_box(200, 200, draws)
    side = round((0.54 * 200 * 200) ** 0.5)  # the middle of the areas, and ratio 1
    assert (left, top, right, bottom) == (0, 200 - side, side, 200)
    high = [1 - 1e-9, 0.5] * ATTEMPTS + [0.0] * 3
    assert random_box(300, 10, high) == (143, 0, 156, 10), "no draw fits: the largest crop of ratio 4/3 at most"


def test_flips_mirror_the_crop(folder: Path) -> None:
    decoder = part(image_folder(folder))[0].decoder
    file = str(folder / "train/n000/0.JPEG")
    draws = [0.5] * (DRAWS - 1)
    plain, mirrored = (decoder._pixels(Image, file, [*draws, last]) for last in (0.7, 0.2))
    assert np.array_equal(mirrored, plain[:, :, ::-1])


@pytest.mark.parametrize(("kind", "axes"), [("gcn", (1, 2, 3)), ("standardize", (0, 2, 3))])
def test_preprocessing_of_a_stream(folder: Path, kind: str, axes: tuple[int, ...]) -> None:
    x, _ = part(image_folder(folder).treated(kind, "none", 2))
    pixels = x[torch.arange(12)]
    assert torch.allclose(pixels.mean(axes), torch.tensor(0.0), atol=1e-4)
    assert torch.allclose(pixels.std(axes, correction=0), torch.tensor(1.0), atol=1e-2)
    with pytest.raises(DataError, match=r"D015.*ZCA whitening needs all images in memory"):
        image_folder(folder).treated("gcn_zca", "none", 2)


def test_grey_models_and_other_modes(folder: Path) -> None:
    picture((30, 40), 1).convert("CMYK").save(folder / "train/n000/cmyk.jpg")
    picture((30, 40), 1).convert("P").save(folder / "train/n000/palette.png")
    x, _ = part(image_folder(folder), shape=(1, 24, 20))
    assert drawn(x).shape == (14, 1, 24, 20)


def damage(folder: Path, how: str) -> Path:
    """One training image that cannot be used."""
    file = folder / "train/n001/3.JPEG"
    if how == "cut":
        file.write_bytes(file.read_bytes()[:300])
    elif how == "text":
        file.write_bytes(b"no image")
    else:
        Image.fromarray(np.zeros((9, 9), np.uint16)).save(file, "PNG")
    return file


@pytest.mark.parametrize("how", ["cut", "text", "deep"])
def test_image_that_cannot_be_decoded_is_named(folder: Path, how: str) -> None:
    file = damage(folder, how)
    x, _ = part(image_folder(folder))
    with pytest.raises(DataError, match=r"D008") as caught:
        drawn(x)
    assert str(file) in str(caught.value)


def test_folders_that_cannot_be_used(folder: Path) -> None:
    with pytest.raises(DataError, match="D003"):
        image_folder(folder / "train")
    with pytest.raises(DataError, match="D002"):
        image_folder(folder / "none")
    with pytest.raises(DataError, match=r"D011.*12 validation images of 12"):
        image_folder(folder, validation=12)
    with pytest.raises(DataError, match=r"D010.*the model takes \(784,\)"):
        part(image_folder(folder), shape=(784,))
    (folder / "val" / "n001").rename(folder / "val" / "other")
    with pytest.raises(DataError, match=r"D008.*the class 'other' has no folder in train"):
        image_folder(folder)
    shutil.rmtree(folder / "val" / "other")
    for file in (folder / "train" / "n000").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"D008.*no images"):
        image_folder(folder)


# from the command line


def train(*flags: str, epochs: int = 2) -> Result:
    arguments = ["train", "small.py", "--data", "imagefolder", "--data-dir", "data", "--epochs", str(epochs)]
    return CliRunner().invoke(main, [*arguments, "--batch-size", "5", *flags], catch_exceptions=False)


def history(*flags: str, **more: Any) -> Any:
    """The epochs of a run, without what differs between equal ones."""
    done = train(*flags, "--json", **more)
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["results"][0]["history"][0]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_training_is_a_function_of_the_seed_alone(folder: Path) -> None:
    first = history("--workers", "1")
    assert first == history("--workers", "4")
    assert first != history("--workers", "1", "--augment", "none")
    assert first != history("--workers", "1", "--seed", "1")
    assert history("--augment", "crop_flip") == history("--augment", "crop_flip", "--workers", "3")


def test_resumed_run_has_the_same_crops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = history(epochs=3)
    real: Callable[..., None] = TrainingView.epoch

    def stop(self: TrainingView, *rest: Any) -> None:
        real(self, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingView, "epoch", stop)
    assert train("--run-dir", "runs", epochs=3).exit_code == 130
    monkeypatch.setattr(TrainingView, "epoch", real)
    refused = train("--run-dir", "runs", "--resume", "--augment", "flip", epochs=3)
    assert "augment was resized_crop_flip and is flip" in " ".join(refused.stderr.split())
    assert history("--run-dir", "runs", "--resume", epochs=3) == whole
    (folder / "train/n000/0.JPEG").rename(folder / "train/n000/new.JPEG")
    assert "the data's checksum was" in train("--run-dir", "runs", "--resume", epochs=3).stderr


def test_damage_that_training_meets_ends_it_with_the_name_of_the_file(folder: Path) -> None:
    last = image_folder(folder).files["train"][-1]  # not among the few that are tried beforehand
    Path(last).write_bytes(b"no image")
    done = train("--run-dir", "runs")
    assert done.exit_code == 2
    assert "error[D008]" in done.stderr and Path(last).name in done.stderr and "depth2, seed 0: " in done.stderr
    assert "Traceback" not in done.stderr


def test_top5_error_is_reported_for_many_classes_or_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(MODEL.format(classes=100))
    fill(tmp_path / "data", classes=100)
    done = train("--json", epochs=1)
    result = json.loads(done.stdout)["results"][0]
    assert 0 <= result["test_top5_error"]["mean"] <= result["test_error"]["mean"]
    assert result["history"][0][0]["test_top5_error"] == result["test_top5_error"]["mean"]


def test_top5_of_two_classes_is_refused(folder: Path) -> None:
    done = train("--top5")
    assert done.exit_code == 2
    assert "error[D016]: --top5 needs 10 classes or more; there are 2 classes" in done.stderr


def test_flags_that_do_not_fit_the_data(folder: Path) -> None:
    done = CliRunner().invoke(main, ["train", "small.py", "--data", "digits", "--workers", "2"])
    assert "--workers 2 is for --data imagefolder" in done.stderr
    assert "D010" in done.stderr, "with all other faults"
