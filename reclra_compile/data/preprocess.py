"""Preprocessing of images: standardised channels, global contrast normalisation and ZCA whitening.

What is fitted is fitted on the training part. Images are rows of pixels in [0, 1], channels first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from reclra_compile.data.cache import cache_file, cached, keep
from reclra_compile.data.faults import problem
from reclra_compile.data.readers import Array
from reclra_compile.data.sets import DataSet, pixels
from reclra_compile.errors import nearest

if TYPE_CHECKING:
    from torch import Tensor

Preprocess = Literal["none", "standardize", "gcn", "gcn_zca"]
KINDS: tuple[str, ...] = get_args(Preprocess)

#: added to the variances that whitening divides by, after GCN to variance 1; as is usual for CIFAR-10
ZCA_EPSILON = 0.1
#: below this an image or a channel counts as constant, and becomes 0
_CONSTANT = 1e-6
#: rows worked on at once, so that no second copy of a data set is made
_CHUNK = 2000
#: pixels from which on a fitted whitening is kept: decomposing the covariance of fewer takes no time
_KEPT_FROM = 1000


@dataclass(frozen=True, eq=False)
class Whitening:
    """ZCA as x ↦ (x − mean) · matrix; float32, of shapes (D,) and (D, D), the matrix symmetric."""

    mean: Tensor
    matrix: Tensor

    def apply_(self, x: Tensor) -> Tensor:
        """Whiten rows of shape (N, D) in place."""
        for chunk in _chunks(x):
            chunk.copy_((chunk - self.mean) @ self.matrix)
        return x


def contrast_normalized_(x: Tensor) -> Tensor:
    """Global contrast normalisation in place: each row gets mean 0 and mean square 1 (norm √D); constant ones 0."""
    for chunk in _chunks(x):
        chunk -= chunk.mean(1, keepdim=True)
        chunk /= chunk.square().mean(1, keepdim=True).sqrt().clamp_(min=_CONSTANT)
    return x


def fit_whitening(x: Tensor, epsilon: float = ZCA_EPSILON) -> Whitening:
    """The ZCA of rows of shape (N, D): matrix U (Λ + epsilon)^-½ Uᵀ, with UΛUᵀ their covariance.

    The covariance is summed and decomposed in float64: its smallest eigenvalues are far below its largest.
    """
    import torch

    mean = _sum(x) / len(x)
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for chunk in _chunks(x):
        centred = chunk - mean.to(x.dtype)
        covariance += centred.T @ centred
    values, vectors = torch.linalg.eigh(covariance / len(x))
    matrix = (vectors * (values.clamp(min=0) + epsilon).rsqrt()) @ vectors.T
    return Whitening(mean.float(), matrix.float())


def kept_whitening(x: Tensor, epsilon: float = ZCA_EPSILON) -> Whitening:
    """As `fit_whitening`, bit by bit, but fitted once for the same rows and threads, and kept in the user's cache."""
    import torch

    if x.shape[1] < _KEPT_FROM:
        return fit_whitening(x, epsilon)
    # sums of float32 depend on how the work is divided
    digest = hashlib.sha256(f"1 {tuple(x.shape)} {epsilon} {torch.get_num_threads()} {torch.__version__}".encode())
    digest.update(x.numpy().data)
    file = cache_file(f"zca-{digest.hexdigest()[:24]}")
    kept = cached(file, ("mean", "matrix"))
    if kept is not None:
        return Whitening(torch.from_numpy(kept["mean"]), torch.from_numpy(kept["matrix"]))
    white = fit_whitening(x, epsilon)
    keep(file, {"mean": white.mean.numpy(), "matrix": white.matrix.numpy()})
    return white


def _chunks(x: Tensor) -> Iterator[Tensor]:
    return (x[k : k + _CHUNK] for k in range(0, len(x), _CHUNK))


def _sum(x: Tensor) -> Tensor:
    """The sum of the rows in float64, without a float64 copy of all of them."""
    import torch

    total = torch.zeros(x.shape[1:], dtype=torch.float64)
    for chunk in _chunks(x):
        total += chunk.double().sum(0)
    return total


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of images (N, C, …), in float32 of shape (C,)."""
    import torch

    moments = torch.zeros(2, x.shape[1], dtype=torch.float64)
    for chunk in _chunks(x):
        each = chunk.double().transpose(0, 1).flatten(1)
        moments += torch.stack((each.sum(1), each.square().sum(1)))
    mean, square = moments / (x.numel() / x.shape[1])
    return mean.float(), (square - mean.square()).clamp(min=0).sqrt().float()


def standardized_(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Channels of images (N, C, …) brought to mean 0 and deviation 1 in place; constant ones become 0."""
    shape = (-1, *[1] * (x.ndim - 2))
    x -= mean.view(shape)
    x /= deviation.clamp(min=_CONSTANT).view(shape)
    return x


def preprocessed(data: DataSet, kind: str) -> DataSet:
    """The data set with its images preprocessed as float32, fitted on its training part without the validation part.

    Raises DataError (D015) for a kind that does not exist.
    """
    import torch

    if kind not in KINDS:
        raise problem("D015", f"there is no preprocessing '{kind}'", nearest(kind, KINDS))
    if kind == "none":
        return data
    shape = data.x_train.shape[1:]
    parts = [torch.from_numpy(pixels(x)) for x in (data.x_train, data.x_valid, data.x_test)]
    if kind == "standardize":
        # grey images and feature vectors are one channel
        images = [x if len(shape) == 3 else x.unsqueeze(1) for x in parts]
        statistics = channel_statistics(images[0])
        for x in images:
            standardized_(x, *statistics)
    else:
        rows = [x.flatten(1) for x in parts]
        for x in rows:
            contrast_normalized_(x)
        if kind == "gcn_zca":
            whitening = kept_whitening(rows[0])
            for x in rows:
                whitening.apply_(x)
    train, valid, test = (_stored(x) for x in parts)
    return replace(data, x_train=train, x_valid=valid, x_test=test, preprocess=kind)


def _stored(x: Tensor) -> Array:
    """Channels last, as a data set keeps images: a view, whose transpose back costs nothing."""
    array: Array = x.numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
