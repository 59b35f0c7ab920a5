"""Data that a model's file brings itself: `data` or `data()`, {"train": (x, y), "test": (x, y)}.

x is a tensor or a tuple of tensors, one for each of the model's inputs; y is what the loss compares the
output with: class indices, a sequence of them, or the values to predict. "valid" may be given too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reclra_compile.data.faults import problem
from reclra_compile.data.sets import Part

if TYPE_CHECKING:
    from torch import Tensor

    Split = tuple[tuple[Tensor, ...], Tensor]

_FIX = 'return {"train": (x, y), "test": (x, y)}, x a tensor or a tuple of tensors, samples first'


@dataclass(frozen=True, slots=True, eq=False)
class OwnData:
    """The parts of a model's own data; a part that is not there has no samples."""

    parts: dict[str, Split]
    name: str = "own"
    classes: int = 0

    def count(self, part: Part) -> int:
        """Samples of a part."""
        return len(self.parts[part][1]) if part in self.parts else 0

    def split(self, part: Part, shapes: tuple[tuple[int, ...], ...]) -> Split:
        """Inputs and targets of a part; raises DataError (D010) where a sample does not have the model's `shapes`."""
        inputs, y = self.parts.get(part) or _empty(self.parts["train"])
        found = tuple(tuple(x.shape[1:]) for x in inputs)
        if found != shapes:
            raise problem("D010", f"a sample of `data` is {_listed(found)}; the model takes {_listed(shapes)}",
                          "make `data` and `example_inputs` of one shape")  # fmt: skip
        return inputs, y


def own_data(value: Any, file: str, validation: int = 0) -> OwnData:
    """The data that a file's `data` gives; raises DataError (D013) that says what is wrong with it."""
    from torch import Tensor

    if isinstance(value, (tuple, list)) and len(value) == 2:
        value = {"train": value[0], "test": value[1]}
    if not isinstance(value, Mapping) or not {"train", "test"} <= set(value):
        has = f"has {', '.join(map(str, value)) or 'nothing'}" if isinstance(value, Mapping) else _kind(value)
        raise problem("D013", f"`data` needs the parts train and test, but it {has}", _FIX, file)
    unknown = sorted(str(k) for k in value if k not in ("train", "valid", "test"))
    if unknown:
        raise problem("D013", f"`data` has the unknown part '{unknown[0]}'", _FIX, file)
    parts: dict[str, Split] = {}
    for part, pair in value.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise problem("D013", f"`data[{part!r}]` is not a pair of inputs and targets", _FIX, file)
        x, y = pair
        inputs = (x,) if isinstance(x, Tensor) else tuple(x) if isinstance(x, (tuple, list)) else ()
        if not inputs or not all(isinstance(t, Tensor) and t.ndim for t in (*inputs, y)):
            raise problem("D013", f"`data[{part!r}]` holds something other than tensors with samples", _FIX, file)
        counts = sorted({len(t) for t in (*inputs, y)})
        if len(counts) > 1:
            raise problem("D006", f"`data[{part!r}]` has {' and '.join(map(str, counts))} samples",
                          "give every tensor one row a sample", file)  # fmt: skip
        if not counts[0] and part != "valid":
            raise problem("D013", f"`data[{part!r}]` has no samples", _FIX, file)
        parts[part] = (inputs, y)
    return _hold_out(OwnData(parts), validation, file)


def _hold_out(data: OwnData, count: int, file: str) -> OwnData:
    """The last `count` training samples as validation part: their order may matter (text, time series)."""
    if not count:
        return data
    inputs, y = data.parts["train"]
    if count >= len(y):
        raise problem("D011", f"{count} validation samples of {len(y)} training samples",
                      f"hold out 0 to {len(y) - 1} samples", file)  # fmt: skip
    train = tuple(x[:-count] for x in inputs), y[:-count]
    return OwnData({**data.parts, "train": train, "valid": (tuple(x[-count:] for x in inputs), y[-count:])})


def _empty(split: Split) -> Split:
    inputs, y = split
    return tuple(x[:0] for x in inputs), y[:0]


def _listed(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join(map(str, shapes))


def _kind(value: Any) -> str:
    return f"is a {type(value).__name__}"
