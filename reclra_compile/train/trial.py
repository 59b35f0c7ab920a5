"""Model and loss on a few samples of the data, before anything is trained: what does not fit is said at once."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from reclra_compile.data.faults import problem
from reclra_compile.data.imagefolder import ImageFolder
from reclra_compile.data.own import OwnData
from reclra_compile.data.sets import DataSet, Part
from reclra_compile.errors import DataError, Fault, Location, ModelError
from reclra_compile.frontend.example import Example, example_of
from reclra_compile.frontend.load_model import Loaded
from reclra_compile.frontend.outputs import choose, pick
from reclra_compile.frontend.probe import model_fails
from reclra_compile.frontend.share import random_fork, shared_copy
from reclra_compile.frontend.user_code import line_of, place, summary
from reclra_compile.runtime.loss import LossFunction
from reclra_compile.train.measure import Measure, classes_axis

PARTS: tuple[Part, ...] = ("train", "valid", "test")
_FIX = "make the targets in `data` what loss_fn(output, target) takes"


def measure_on(
    loaded: Loaded, data: DataSet | OwnData | ImageFolder, loss_fn: LossFunction, output: str | int | None
) -> Measure:
    """What to report of a run on this data: "error" where every target is classes, or else "loss".

    Raises DataError (D007, D010, D014) and ModelError (M010) where data, model and loss do not fit together.
    """
    example = example_of(loaded.model, loaded.inputs)
    few = data.few()
    found: list[int | None] = []
    for part in (p for p in PARTS if data.count(p)):
        split, y = few.split(part, example)
        inputs = tuple(x for x in split if isinstance(x, Tensor))  # a few samples are never left in their files
        result = _output(loaded, example, inputs, output)
        axis = classes_axis(result, y, loss_fn)
        if axis is not None and isinstance(data, OwnData):  # the labels of a data set are checked where it is read
            _check_labels(data.parts[part][1], result.shape[axis], part, loaded.where.file)
        if not _on_meta(loaded):  # a loss has values of its own
            _try_loss(loaded, loss_fn, result, y, part)
        found.append(axis)
    return "loss" if None in found else "error"


def _on_meta(loaded: Loaded) -> bool:
    """Whether the model has shapes but no values, as where ranks draw their own."""
    return any(p.is_meta for p in loaded.model.parameters())


def _output(
    loaded: Loaded, example: Example, inputs: tuple[Tensor, ...], output: str | int | None
) -> Tensor:
    if _on_meta(loaded):
        inputs = tuple(x.to("meta") for x in inputs)
    twin = shared_copy(loaded.model).eval()
    args, named = example.placed(inputs)
    try:
        with torch.no_grad(), random_fork(loaded.model):
            result = twin(*args, **named)
    except Exception as error:
        where = loaded.where if loaded.module is None else place(loaded.module, "data")
        raise ModelError(model_fails(error, inputs, "its data", where)) from error
    chosen: Tensor = pick(result, choose(result, output, loaded.model))
    return chosen


def _try_loss(loaded: Loaded, loss_fn: LossFunction, output: Tensor, y: Tensor, part: Part) -> None:
    shapes = f"an output {_kind(output)} and a target {_kind(y)} of the {part} part"
    where = None if loaded.extra("loss_fn") is None or loaded.module is None else place(loaded.module, "loss_fn")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # torch broadcasts a target of another shape with no more than a warning
            warnings.filterwarnings("error", message="Using a target size")
            loss = loss_fn(output, y)
    except Exception as error:
        raise _misfit(f"the loss fails on {shapes} ({summary(error)})", line_of(error) or where) from error
    if not isinstance(loss, Tensor) or loss.ndim:
        found = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise _misfit(f"the loss of {shapes} is {found}, not a scalar tensor", where)


def _misfit(message: str, where: Location | None) -> DataError:
    return DataError(Fault("D014", message, where, _FIX))


def _check_labels(y: Tensor, classes: int, part: Part, file: str) -> None:
    if int(y.max()) >= classes:
        found = f"`data[{part!r}]` has the label {int(y.max())}; the model's output has {classes} classes"
        raise problem("D007", found, f"use labels 0 to {classes - 1}, or give the model more outputs", file)
    if int(y.max()) < 0:
        raise problem("D007", f"`data[{part!r}]` has no label from 0 on", "negative labels are left out", file)


def _kind(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
