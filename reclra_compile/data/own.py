"""Data that a model's file brings itself: `data` or `data()`, {"train": (x, y), "test": (x, y)}.

x is a tensor, a tuple of tensors in the order of forward()'s arguments, or a dict of them by argument; y is
what the loss compares the output with: class indices, a sequence of them, or the values to predict. "valid"
may be given too.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reclra_compile.data.faults import problem
from reclra_compile.data.sets import Part

if TYPE_CHECKING:
    from torch import Tensor

    from reclra_compile.frontend.example import Example

    Split = tuple[tuple[Tensor, ...], Tensor]

_FIX = (
    'give {"train": (x, y), "test": (x, y)}, x a tensor or a tuple of tensors, samples first; '
    "or name a data set with --data"
)


@dataclass(frozen=True, slots=True, eq=False)
class OwnData:
    """The parts of a model's own data; a part that is not there has no samples.

    `names` are the arguments that the inputs are for, where the file gives them by name.
    """

    parts: dict[str, Split]
    names: tuple[str, ...] = ()
    name: str = "own"
    classes: int = 0
    preprocess: str = "none"

    def count(self, part: Part) -> int:
        """Samples of a part."""
        return len(self.parts[part][1]) if part in self.parts else 0

    def few(self) -> OwnData:
        """Some samples of each part: the first ones, and those with the largest and smallest index of each input."""
        return replace(self, parts={part: _few(split) for part, split in self.parts.items()})

    def split(self, part: Part, example: Example) -> Split:
        """Inputs, in the order of the model's `example` ones, and targets of a part.

        Raises DataError (D010) where a sample is not of the example's names, shapes and types.
        """
        inputs, y = self.parts.get(part) or _empty(self.parts["train"])
        if self.names:
            if sorted(self.names) != sorted(example.keywords):
                takes = f"inputs by the names {_names(example.keywords)}" if example.keywords else "no inputs by name"
                raise problem("D010", f"`data` has the inputs {_names(self.names)}; `example_inputs` has {takes}",
                              "give both as dicts with the same names")  # fmt: skip
            inputs = tuple(inputs[self.names.index(name)] for name in example.keywords)
        found, takes = _kinds(inputs), _kinds(example.tensors)
        if found != takes:
            raise problem("D010", f"a sample of `data` is {found}; the model takes {takes}",
                          "make `data` and `example_inputs` of one shape and type")  # fmt: skip
        return inputs, y

    def digest(self) -> str:
        """A checksum of every value, to tell whether a resumed run has the same data."""
        import torch

        found = 0
        for part in sorted(self.parts):
            inputs, y = self.parts[part]
            for x in (*inputs, y):
                found = zlib.crc32(repr((part, tuple(x.shape), x.dtype)).encode(), found)
                found = zlib.crc32(x.cpu().contiguous().flatten().view(torch.uint8).numpy().data, found)
        return f"{found:08x}"


def own_data(value: Any, file: str, validation: int = 0) -> OwnData:
    """The data that a file's `data` gives; raises DataError (D006, D011, D013) that says what is wrong with it."""
    from torch import Tensor

    if isinstance(value, (tuple, list)) and len(value) == 2:
        value = {"train": value[0], "test": value[1]}
    if not isinstance(value, Mapping) or not {"train", "test"} <= set(value):
        has = f"has {_names(tuple(map(str, value)))}" if isinstance(value, Mapping) else _kind(value)
        raise problem("D013", f"`data` needs the parts train and test, but it {has}", _FIX, file)
    unknown = sorted(str(k) for k in value if k not in ("train", "valid", "test"))
    if unknown:
        raise problem("D013", f"`data` has the unknown part '{unknown[0]}'", _FIX, file)
    parts: dict[str, Split] = {}
    names: dict[str, tuple[str, ...]] = {}
    for part, pair in value.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise problem("D013", f"`data[{part!r}]` is not a pair of inputs and targets", _FIX, file)
        x, y = pair
        names[part] = tuple(map(str, x)) if isinstance(x, Mapping) else ()
        x = tuple(x.values()) if isinstance(x, Mapping) else x
        inputs = (x,) if isinstance(x, Tensor) else tuple(x) if isinstance(x, (tuple, list)) else ()
        if not inputs or not all(isinstance(t, Tensor) and t.ndim for t in (*inputs, y)):
            raise problem("D013", f"`data[{part!r}]` holds something other than tensors with samples", _FIX, file)
        if names[part] != names.setdefault("train", names[part]):
            raise problem("D013", f"`data[{part!r}]` names its inputs otherwise than `data['train']`", _FIX, file)
        counts = sorted({len(t) for t in (*inputs, y)})
        if len(counts) > 1:
            raise problem("D006", f"`data[{part!r}]` has {' and '.join(map(str, counts))} samples",
                          "give every tensor one row a sample", file)  # fmt: skip
        if not counts[0] and part != "valid":
            raise problem("D013", f"`data[{part!r}]` has no samples", _FIX, file)
        parts[part] = (tuple(t.detach() for t in inputs), y.detach())
    return _hold_out(OwnData(parts, names["train"]), validation, file)


def _hold_out(data: OwnData, count: int, file: str) -> OwnData:
    """The last `count` training samples as validation part: their order may matter (text, time series)."""
    if not count:
        return data
    inputs, y = data.parts["train"]
    if "valid" in data.parts:
        raise problem("D011", "`data` has a part valid already, so --validation would replace it",
                      "leave --validation out", file)  # fmt: skip
    if count >= len(y):
        raise problem("D011", f"{count} validation samples of {len(y)} training samples",
                      f"hold out 0 to {len(y) - 1} samples", file)  # fmt: skip
    train = tuple(x[:-count] for x in inputs), y[:-count]
    return replace(data, parts={**data.parts, "train": train, "valid": (tuple(x[-count:] for x in inputs), y[-count:])})


def _empty(split: Split) -> Split:
    inputs, y = split
    return tuple(x[:0] for x in inputs), y[:0]


def _few(split: Split) -> Split:
    inputs, y = split
    rows = {0, len(y) - 1} if len(y) else set()
    for x in inputs if len(y) else ():
        if not x.is_floating_point() and not x.is_complex() and x.numel():  # an index may lie outside a table
            each = x.flatten().long()
            rows |= {int(k) * len(x) // x.numel() for k in (each.argmax(), each.argmin())}
    chosen = sorted(rows)
    return tuple(x[chosen] for x in inputs), y[chosen]


def _kinds(inputs: tuple[Tensor, ...]) -> str:
    """Shape and type of one sample, for comparing and for people."""
    return " and ".join(f"{tuple(x.shape[1:])} {str(x.dtype).removeprefix('torch.')}" for x in inputs)


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"


def _kind(value: Any) -> str:
    return f"is a {type(value).__name__}"
