"""Copies of a model that share its parameters: safe to trace and to run, and no second set of weights.

Buffers and Python state are copied; each parameter becomes another one over the same memory. A forward
pass that writes to its own parameters would reach the user's weights through such a copy, so it runs
under `guarded`, which stops the write before it happens.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class ParameterWritten(RuntimeError):
    """A forward pass is about to change the parameter `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the forward pass changes the parameter '{name}'")
        self.name = name


def aliases(model: nn.Module) -> dict[int, Any]:
    """For each parameter, by identity, another one over the same memory: a memo for `copy.deepcopy`."""
    renormed = {
        id(m.weight)
        for m in model.modules()
        if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.max_norm is not None
    }  # these layers rescale their weight while they look it up, so a trial run needs its own
    return {
        id(p): _alias(p) for p in model.parameters() if type(p) is nn.Parameter and (id(p) not in renormed or p.is_meta)
    }


def _alias(p: nn.Parameter) -> nn.Parameter:
    twin = nn.Parameter(p.detach(), requires_grad=p.requires_grad)
    twin.__dict__.update(p.__dict__)
    return twin


_TRAINS: contextvars.ContextVar[bool] = contextvars.ContextVar("trains", default=True)


@contextlib.contextmanager
def copies_evaluate() -> Iterator[None]:
    """Inside, copies are in eval mode, so that a model is traced as it evaluates."""
    token = _TRAINS.set(False)
    try:
        yield
    finally:
        _TRAINS.reset(token)


def shared_copy(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A copy in train mode that shares the parameters' memory with `model`."""
    twin: nn.Module = copy.deepcopy(model, aliases(model) if memo is None else memo)
    return twin if twin.training is _TRAINS.get() else twin.train(_TRAINS.get())


class guarded(TorchDispatchMode):
    """Inside, an operation that would write to a parameter of `model` raises ParameterWritten instead."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {p.untyped_storage()._cdata: name for name, p in model.named_parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        if schema is not None and schema.is_mutable:
            for position, argument in enumerate(schema.arguments):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    given = args[position] if position < len(args) else kwargs.get(argument.name)
                    for t in _tensors(given):
                        name = self._names.get(t.untyped_storage()._cdata)
                        if name is not None:
                            raise ParameterWritten(name)
        return func(*args, **kwargs)


def replaced(model: nn.Module, memo: dict[int, Any]) -> str | None:
    """The name of a parameter whose alias in `memo` a forward pass has given other memory (`w.data = …`)."""
    for name, p in model.named_parameters():
        if id(p) in memo and memo[id(p)].data_ptr() != p.data_ptr():
            return name
    return None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from _tensors(v)


def random_fork(model: nn.Module) -> Any:
    """A context that restores the random state of the processor and of every device the model is on."""
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    return torch.random.fork_rng(devices=[d.index or 0 for d in devices])
