"""The modes of torch that see what a constructor does to tensors on the meta device."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

_LITERALS = (torch.tensor, torch.as_tensor, torch.asarray)
_IS_META = Tensor.is_meta.__get__  # type: ignore[attr-defined]


class Watcher(Protocol):
    """Who is told."""

    def add(self, call: Any, args: Any, kwargs: Any, result: Any) -> None:
        """An operation of torch has run on meta tensors."""

    def add_call(self, call: Any, arguments: dict[str, Any]) -> None:
        """A function of `torch.nn.init`, which draws its argument `tensor`, does nothing as that is on meta."""


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Inside, `watcher` is told of all that would give tensors on meta their values."""
    with _Meant(watcher), _Operations(watcher):
        yield


class _Operations(TorchDispatchMode):
    def __init__(self, watcher: Watcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watcher = watcher

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [t for t in tree_iter((args, kwargs, result)) if isinstance(t, Tensor)]
        # Subclasses, such as the fake tensors of torch.export, have values of another kind.
        if any(t.is_meta for t in given) and all(type(t) in (Tensor, nn.Parameter, nn.Buffer) for t in given):
            self._watcher.add(func, args, kwargs or {}, result)
        return result


class _Meant(TorchFunctionMode):
    """What torch leaves out on meta: numbers given in Python, and functions that return where `is_meta`."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self._watcher = watcher

    def _kept_whole(self, frame: FrameType | None) -> None:
        """A function of torch.nn.init that asks for `is_meta` returns at once, and is put on record here."""
        while frame is not None and frame.f_globals.get("__name__") in ("torch.utils._device", "torch.overrides"):
            frame = frame.f_back
        if frame is not None and frame.f_globals is vars(nn.init):
            code = frame.f_code
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            call, arguments = vars(nn.init).get(code.co_name), {n: frame.f_locals[n] for n in names}
            if call is not None and isinstance(arguments.get("tensor"), Tensor) and arguments["tensor"].is_meta:
                self._watcher.add_call(call, arguments)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _IS_META:
            self._kept_whole(sys._getframe(1))
        kwargs = dict(kwargs or {})
        made = func(*args, **kwargs)
        if func not in _LITERALS or not made.is_meta or any(isinstance(x, Tensor) for x in tree_iter(args)):
            return made
        kwargs.pop("requires_grad", None)
        with torch.device("cpu"):
            value = func(*args, **{**kwargs, "device": "cpu"})
        return value.to("meta").requires_grad_(made.requires_grad)


def written(call: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The tensors that an operation writes to."""
    for position, argument in enumerate(call._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[position] if position < len(args) else kwargs.get(argument.name)
            yield from (t for t in tree_iter(given) if isinstance(t, Tensor))
