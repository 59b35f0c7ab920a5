"""What a value looks like on its way to another rank: a description both sides keep, and tensors without gaps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reclra_compile.errors import Fault, RankError
from reclra_compile.runtime.state import Errors

Spec = tuple[str, tuple[int, ...], tuple[int, ...]]  #: dtype, shape as it is sent, and the dimension each of them was


@dataclass(frozen=True)
class Layout:
    """The form of a value as JSON text, in which numbers stand for its tensors, and how each of these is sent."""

    form: str
    specs: tuple[Spec, ...]

    def text(self) -> str:
        """As one line, for the other side."""
        return json.dumps([self.form, self.specs])

    @classmethod
    def parse(cls, text: str) -> Layout:
        """From `text`."""
        form, specs = json.loads(text)
        return cls(form, tuple((dtype, tuple(shape), tuple(order)) for dtype, shape, order in specs))


def packed(value: Any, what: str, like: Layout | None = None) -> tuple[Layout, list[Tensor]]:
    """A value as its layout and contiguous tensors; raises RankError (R109) for what cannot be sent.

    With `like`, dimensions are in the order of that layout, where there are as many.
    """
    tensors: list[Tensor] = []
    form = _form(value, tensors, what)
    sent, specs = [], []
    orders = [order for _, _, order in like.specs] if like else []
    for k, t in enumerate(tensors):
        if k < len(orders) and len(orders[k]) == t.ndim:
            order = orders[k]
            t = t.detach().permute(order).contiguous()
        else:
            t, order = dense(t)
        sent.append(t)
        specs.append((str(t.dtype).removeprefix("torch."), tuple(t.shape), order))
    return Layout(json.dumps(form), tuple(specs)), sent


def unpacked(layout: Layout, tensors: Sequence[Tensor], device: torch.device) -> Any:
    """The value that `packed` took apart, on `device`."""
    views = [_as_it_was(t, order) for t, (_, _, order) in zip(tensors, layout.specs, strict=True)]
    return _value(json.loads(layout.form), views, device)


def dense(t: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """A contiguous tensor with the numbers of `t`, without a copy where these lie without gaps in another order."""
    t = t.detach()
    if t.is_contiguous():
        return t, tuple(range(t.ndim))
    strides = t.stride()
    order = tuple(sorted(range(t.ndim), key=lambda k: (-strides[k], k)))
    turned = t.permute(order)
    if turned.is_contiguous():  # channels_last, or transposed
        return turned, order
    return t.contiguous(), tuple(range(t.ndim))


def empty(layout: Layout, device: torch.device) -> list[Tensor]:
    """Room for the tensors of a layout."""
    return [torch.empty(shape, dtype=getattr(torch, dtype), device=device) for dtype, shape, _ in layout.specs]


def _as_it_was(t: Tensor, order: tuple[int, ...]) -> Tensor:
    if order == tuple(range(t.ndim)):
        return t
    back = sorted(range(t.ndim), key=lambda k: order[k])
    return t.permute(back)


def _form(value: Any, tensors: list[Tensor], what: str) -> Any:
    if isinstance(value, Tensor):
        tensors.append(value)
        return ["tensor", len(tensors) - 1]
    if isinstance(value, torch.Size):
        return ["size", list(value)]
    if isinstance(value, Errors):
        return ["errors", [_form(v, tensors, what) for v in value]]
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return [type(value).__name__, [_form(v, tensors, what) for v in value]]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return ["dict", [[k, _form(v, tensors, what)] for k, v in value.items()]]
    if isinstance(value, torch.dtype):
        return ["dtype", str(value).removeprefix("torch.")]
    if isinstance(value, torch.device):
        return ["device", 0]
    if value is None or isinstance(value, bool | int | float | str):
        return ["plain", value]
    raise RankError(
        Fault("R109", f"{what} is a {type(value).__name__}, which cannot be sent to another rank",
              fix="pin the regions that make and read it to one device, with --pin")
    )  # fmt: skip


_MAKE: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple, "list": list, "errors": lambda parts: Errors(*parts)
}  # fmt: skip


def _value(form: Any, tensors: Sequence[Tensor], device: torch.device) -> Any:
    kind, content = form
    if kind == "tensor":
        return tensors[content]
    if kind in _MAKE:
        return _MAKE[kind]([_value(f, tensors, device) for f in content])
    if kind == "dict":
        return {k: _value(f, tensors, device) for k, f in content}
    if kind == "size":
        return torch.Size(content)
    if kind == "dtype":
        return getattr(torch, content)
    return device if kind == "device" else content
