"""What a model returns, taken apart into the tensors that a loss may read, and put together again."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reclra_compile.errors import Fault, ModelError
from reclra_compile.frontend.example import Example
from reclra_compile.frontend.outputs import ALL, Joined, Path, choose, join, leaves, pick
from reclra_compile.frontend.probe import Probe
from reclra_compile.frontend.share import guarded, shared_copy


@dataclass(frozen=True)
class _Part:
    """A place in the result: output `number`, a constant `value`, or a container of `kind` with named `items`."""

    kind: Any = None
    items: tuple[tuple[Any, _Part], ...] = ()
    number: int | None = None
    value: Any = None

    def filled(self, outputs: Sequence[Tensor]) -> Any:
        """The same with these tensors."""
        if self.number is not None:
            return outputs[self.number]
        if self.kind is None:
            return self.value
        values = {key: part.filled(outputs) for key, part in self.items}
        if dataclasses.is_dataclass(self.kind) or hasattr(self.kind, "_fields"):
            return self.kind(**values)
        return self.kind(values if issubclass(self.kind, Mapping) else values.values())


@dataclass(frozen=True)
class Results:
    """The outputs that a loss may read, in order: their names, and the shape of a sample of each."""

    whole: _Part
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def parts(self, output: Tensor) -> list[Tensor]:
        """The outputs, as parts of the plan's output, which has them side by side where they are several."""
        if len(self.names) == 1:
            return [output]
        widths = [math.prod(shape) for shape in self.shapes]
        return [p.reshape(-1, *shape) for p, shape in zip(torch.split(output, widths, 1), self.shapes, strict=True)]

    def gradient(self, gradients: Sequence[Tensor]) -> Tensor:
        """That of the plan's output, from those of the outputs."""
        return gradients[0] if len(gradients) == 1 else join(*gradients)


def results_of(model: nn.Module, example: Example, output: str | int | None) -> Results:
    """What `model` returns for its example inputs; raises ModelError (A004) for what cannot be trained from."""
    result = _result(model, example)
    path = choose(result, ALL if output is None else output, model)
    paths = list(path) if isinstance(path, Joined) else [path]
    if output is None:
        _check(result, paths, len(example.tensors[0]))
    names = tuple(_name(p) for p in paths)
    return Results(_part(result, (), paths), names, tuple(tuple(pick(result, p).shape[1:]) for p in paths))


def _result(model: nn.Module, example: Example) -> Any:
    """What a copy of the model returns; raises ModelError (M010) where it fails."""
    devices = {t.device for t in example.tensors if t.is_cuda}
    try:
        with torch.random.fork_rng(sorted(devices, key=str)), torch.no_grad(), guarded(model):
            return shared_copy(model)(*example.args, **example.named)
    except Exception:
        Probe(model, example)  # says what is wrong
        raise


def _check(result: Any, paths: list[Path], batch: int) -> None:
    found = [(_name(path), t) for path, t in leaves(result)]
    learned = {_name(p) for p in paths}
    fix = "choose what the loss is computed from: attach(…, output=…), others are then None in training"
    for name, t in found:
        if name not in learned:
            message = f"the model returns '{name}', a tensor of {t.dtype}, from which nothing can be learned"
            raise ModelError(Fault("A004", message, fix=fix))
        if len(paths) > 1 and (t.ndim == 0 or len(t) != batch):
            message = f"the model returns '{name}' of shape {tuple(t.shape)}, whose first dimension is not the batch"
            raise ModelError(Fault("A004", message, fix=fix))
    if len({t.dtype for _, t in found}) > 1:
        raise ModelError(Fault("A004", "the model returns outputs of several precisions", fix=fix))


def _name(path: Path) -> str:
    return ".".join(map(str, path)) or "0"


def _part(value: Any, path: Path, paths: list[Path]) -> _Part:
    if isinstance(value, Tensor):
        return _Part(number=paths.index(path)) if path in paths else _Part()
    if isinstance(value, Mapping):
        items: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        items = list(zip(value._fields, value, strict=True))
    elif isinstance(value, (tuple, list)):
        items = list(enumerate(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    else:  # a cache, say, belongs to the call that made it
        return _Part(value=value if isinstance(value, (bool, int, float, str)) else None)
    return _Part(type(value), tuple((key, _part(v, (*path, key), paths)) for key, v in items))
