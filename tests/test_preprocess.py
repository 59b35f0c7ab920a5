"""Preprocessing and augmentation of images: against direct formulas, and on the way through training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from reclra_compile.cli.main import main
from reclra_compile.cli.training_view import TrainingView
from reclra_compile.data import preprocess
from reclra_compile.data.augment import augmentation, cropped, flipped
from reclra_compile.data.preprocess import (
    KINDS,
    ZCA_EPSILON,
    channel_statistics,
    contrast_normalized_,
    fit_whitening,
    preprocessed,
    standardized_,
)
from reclra_compile.data.sets import DataSet, load
from reclra_compile.errors import DataError
from reclra_compile.train.measure import errors_percent


def images(*shape: int, seed: int = 0) -> Tensor:
    """Random rows whose columns are correlated, as pixels are."""
    drawn = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return drawn.flatten(1).cumsum(1).view(shape) / drawn[0].numel()


def colours(n: int = 60) -> DataSet:
    """A small data set of colour images, with a validation part."""
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 256, (k, 4, 5, 3), np.uint8) for k in (n, 10, 20)]
    y = [np.arange(len(part)) % 3 for part in x]
    return DataSet("small", x[0], y[0], x[1], y[1], x[2], y[2], 3)


def test_contrast_normalisation_gives_mean_0_and_mean_square_1() -> None:
    x = images(7, 48)
    done = contrast_normalized_(x.clone())
    assert torch.allclose(done.mean(1), torch.zeros(7), atol=1e-6)
    assert torch.allclose(done.norm(dim=1), torch.full((7,), 48**0.5), rtol=1e-5)
    expected = np.stack([(row - row.mean()) / row.std() for row in x.double().numpy()])
    assert np.allclose(done.numpy(), expected, atol=1e-5)
    assert torch.equal(contrast_normalized_(torch.full((1, 48), 0.3)), torch.zeros(1, 48))
    assert torch.allclose(contrast_normalized_(3 * x + 2), done, atol=1e-4), "neither brightness nor contrast matter"


def test_whitening_is_the_inverse_root_of_the_covariance() -> None:
    x = images(4100, 12).mul_(10)  # more rows than a chunk has
    white = fit_whitening(x, epsilon=1e-9)
    done = white.apply_(x.clone()).double()
    assert torch.allclose(done.mean(0), torch.zeros(12, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(torch.cov(done.T, correction=0), torch.eye(12, dtype=torch.float64), atol=2e-3)
    assert torch.equal(white.matrix, white.matrix.T) or torch.allclose(white.matrix, white.matrix.T, rtol=1e-5)


def test_epsilon_shrinks_whitened_variances_as_the_formula_says() -> None:
    x = images(300, 12)
    covariance = np.cov(x.double().numpy().T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    white = fit_whitening(x, 0.1)
    matrix = vectors @ np.diag((values + 0.1) ** -0.5) @ vectors.T
    assert np.allclose(white.matrix.numpy(), matrix, atol=1e-5)
    assert np.allclose(white.mean.numpy(), x.double().numpy().mean(0), atol=1e-6)
    left = np.cov(white.apply_(x.clone()).double().numpy().T, bias=True)
    assert np.allclose(left, vectors @ np.diag(values / (values + 0.1)) @ vectors.T, atol=1e-5)


def test_whitening_of_fewer_images_than_pixels_is_finite() -> None:
    x = images(5, 40)
    assert fit_whitening(x).apply_(x).isfinite().all()


def test_channels_are_standardised_one_by_one() -> None:
    x = images(2500, 3, 2, 2)
    mean, deviation = channel_statistics(x)
    assert torch.allclose(mean, x.mean((0, 2, 3)), rtol=1e-4)
    assert torch.allclose(deviation, x.std((0, 2, 3), correction=0), rtol=1e-3)
    done = standardized_(x, mean, deviation)
    assert torch.allclose(done.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(done.std((0, 2, 3), correction=0), torch.ones(3), rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_flat_and_channels_first_models_see_the_same_pixels(kind: str) -> None:
    data = preprocessed(colours(), kind)
    for part in ("train", "valid", "test"):
        x, y = data.as_tensors(part, (3, 4, 5))
        flat, _ = data.as_tensors(part, (60,))
        assert torch.equal(x.flatten(1), flat)
        assert x.dtype == torch.float32 and len(x) == len(y) == data.count(part)
    assert data.preprocess == kind and data.few().preprocess == kind


def test_whole_chain_on_a_data_set_is_fitted_on_its_training_part() -> None:
    plain, data = colours(), preprocessed(colours(), "gcn_zca")
    raw = {part: plain.as_tensors(part, (60,))[0].double().numpy() for part in ("train", "test")}
    gcn = {k: (v - v.mean(1, keepdims=True)) / v.std(1, keepdims=True) for k, v in raw.items()}
    mean, covariance = gcn["train"].mean(0), np.cov(gcn["train"].T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    matrix = vectors @ np.diag((values.clip(0) + ZCA_EPSILON) ** -0.5) @ vectors.T
    for part in ("train", "test"):
        found = data.as_tensors(part, (60,))[0].numpy()
        assert np.allclose(found, (gcn[part] - mean) @ matrix, atol=1e-4)
    again = preprocessed(colours(), "gcn_zca")
    assert np.array_equal(again.x_train, data.x_train), "the same bits each time"
    assert plain.x_train.dtype == np.uint8, "the data set itself is left alone"


def test_fitted_whitening_is_kept_for_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(preprocess, "_KEPT_FROM", 40)
    first = preprocessed(colours(), "gcn_zca")
    (file,) = (tmp_path / "reclra-compile").glob("zca-*.npz")
    with monkeypatch.context() as patch:
        patch.setattr(preprocess, "fit_whitening", None)
        assert np.array_equal(preprocessed(colours(), "gcn_zca").x_test, first.x_test)
    other = preprocessed(colours(50), "gcn_zca")
    assert len(list((tmp_path / "reclra-compile").glob("zca-*.npz"))) == 2
    assert not np.array_equal(other.x_test, first.x_test)
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(preprocessed(colours(), "gcn_zca").x_test, first.x_test), "a damaged cache is made anew"


def test_other_test_images_do_not_change_the_training_part() -> None:
    data = colours()
    one = preprocessed(data, "gcn_zca")
    dark = DataSet("small", data.x_train, data.y_train, data.x_valid, data.y_valid, data.x_test // 2, data.y_test, 3)
    for kind in ("gcn_zca", "standardize"):
        assert np.array_equal(preprocessed(dark, kind).x_train, preprocessed(data, kind).x_train)
    assert not np.array_equal(preprocessed(dark, "standardize").x_test, preprocessed(data, "standardize").x_test)
    assert one.classes == 3


def test_grey_images_and_feature_vectors_are_one_channel() -> None:
    digits = preprocessed(load("digits"), "standardize")
    x = digits.x_train
    assert x.shape[1:] == (8, 8) and abs(float(x.mean())) < 1e-4 and abs(float(x.std()) - 1) < 1e-4


def test_unknown_preprocessing_is_refused() -> None:
    with pytest.raises(DataError, match=r"D015.*there is no preprocessing 'gnc'"):
        preprocessed(colours(), "gnc")


# augmentation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_flips_mirror_about_half_of_the_images() -> None:
    x = images(400, 2, 3, 5)
    done = flipped(x, generator())
    same = (done == x).flatten(1).all(1)
    mirrored = (done == x.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 150 < int(mirrored.sum()) < 250
    assert torch.equal(done, flipped(x, generator())) and not torch.equal(done, flipped(x, generator(1)))


def test_crops_are_shifts_with_zeros_from_outside() -> None:
    x = images(300, 2, 6, 5) + 1
    done = cropped(x, generator(), padding=2)
    shift = torch.randint(5, (2, 300), generator=generator())
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    for k, (top, left) in enumerate(shift.T.tolist()):
        assert torch.equal(done[k], padded[k, :, top : top + 6, left : left + 5])
    assert set(shift.flatten().tolist()) == {0, 1, 2, 3, 4}
    assert (done == 0).any()


@pytest.mark.parametrize("kind", ["flip", "crop_flip"])
def test_flat_images_are_augmented_as_others_are(kind: str) -> None:
    augment = augmentation(kind, (3, 4, 5))
    assert augment is not None
    x = images(20, 3, 4, 5)
    (image,), (flat,) = augment((x,), generator()), augment((x.flatten(1),), generator())
    assert torch.equal(image.flatten(1), flat) and not torch.equal(image, x)
    assert augmentation("none", (3, 4, 5)) is None


# from the command line


ROOT = Path(__file__).resolve().parent.parent


def train(*flags: str, model: str = "examples/mlp_digits.py", epochs: int = 1) -> Result:
    arguments = ["train", str(ROOT / model), "--epochs", str(epochs), "--batch-size", "256", *flags]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_preprocessing_is_part_of_a_run(tmp_path: Path) -> None:
    runs = ("--run-dir", str(tmp_path))
    done = train("--preprocess", "gcn_zca", *runs)
    assert done.exit_code == 0, done.stderr
    assert "digits (gcn_zca): 1,437 training" in done.stdout
    refused = train("--resume", *runs)
    assert refused.exit_code == 2
    assert "T021" in refused.stderr and "preprocess was gcn_zca and is none" in " ".join(refused.stderr.split())
    again = json.loads(train("--preprocess", "gcn_zca", "--resume", "--json", *runs).stdout)
    assert again["preprocess"] == "gcn_zca"
    plain = json.loads(train("--json").stdout)
    assert plain["preprocess"] == "none"
    assert plain["results"][0]["history"][0][0]["loss"] != again["results"][0]["history"][0][0]["loss"]


def epochs(*flags: str, count: int = 3, **more: str) -> list[dict[str, object]]:
    done = train(*flags, "--json", epochs=count, **more)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["augment"] == ("crop_flip" if "crop_flip" in flags else "none")
    rows = json.loads(done.stdout)["results"][0]["history"][0]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_augmented_run_is_resumed_with_the_same_random_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = epochs("--augment", "crop_flip")
    assert whole == epochs("--augment", "crop_flip")
    assert whole[0]["loss"] != epochs(count=3)[0]["loss"]
    flags = ("--augment", "crop_flip", "--run-dir", str(tmp_path))
    real = TrainingView.epoch

    def stop(self: TrainingView, *rest: Any) -> None:
        real(self, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingView, "epoch", stop)
    assert train(*flags, epochs=3).exit_code == 130
    monkeypatch.setattr(TrainingView, "epoch", real)
    assert epochs(*flags, "--resume") == whole
    assert "augment was crop_flip and is none" in " ".join(train("--resume", *flags[2:], epochs=3).stderr.split())


def test_augmentation_that_the_data_does_not_allow_is_refused() -> None:
    done = train("--augment", "flip", model="examples/tabular.py")
    assert "error[D015]: --augment flip needs one input of images" in done.stderr
    assert "--augment resized_crop_flip is for --data imagefolder" in train("--augment", "resized_crop_flip").stderr


def test_top5_error_of_ten_classes_is_reported_when_asked() -> None:
    done = train("--top5", "--seeds", "2")
    assert "top-5" in done.stdout
    row = json.loads(train("--top5", "--seeds", "2", "--json").stdout)["results"][0]
    assert row["test_top5_error"]["each"] == [h[-1]["test_top5_error"] for h in row["history"]]
    assert 0 <= row["test_top5_error"]["mean"] < row["test_error"]["mean"]
    assert json.loads(train("--json").stdout)["results"][0]["test_top5_error"] is None


def test_errors_by_rank_count_labels_among_the_best() -> None:
    outputs = torch.tensor([[5.0, 4, 3, 2, 1, 0, -1], [0, 1, 2, 3, 4, 5, 6], [9, 1, 2, 3, 4, 5, 6]])
    y = torch.tensor([4, 1, -1])  # fifth best, sixth best, and one that does not count
    split = (outputs,), y
    loss_fn = torch.nn.functional.cross_entropy
    found = errors_percent(torch.nn.Identity(), lambda x: x[0], split, loss_fn, (1, 2, 5, 6, 9))
    assert found == (100, 100, 50, 0, 0)


def test_own_data_is_not_preprocessed() -> None:
    done = train("--preprocess", "gcn", model="examples/tabular.py")
    assert done.exit_code == 2
    assert "error[D015]: --preprocess gcn is for the data sets of images that --data names" in done.stderr
