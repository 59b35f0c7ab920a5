"""A model's class with a forward pass of ours: same name, same attributes, and an instance of the model's own class.

Nothing is added to the model's children: the synapses answer where parameters are named, moved, saved or loaded, so
that `len(model)` of an `nn.Sequential`, or a summary of layers, stay as they were.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from reclra_compile.errors import Fault, UserError

PREFIX = "reclra"


class Attached:
    """Mixed into the class of an attached model; `reclra` is its Attachment."""

    reclra: Any
    training: bool

    def named_modules(self, memo: Any = None, prefix: str = "", remove_duplicate: bool = True) -> Iterator[Any]:
        """The model's modules, then those of the synapses."""
        memo = set() if memo is None else memo
        yield from super().named_modules(memo, prefix, remove_duplicate)  # type: ignore[misc]
        below = f"{prefix}.{PREFIX}" if prefix else PREFIX
        yield from self.reclra.synapses.named_modules(memo, below, remove_duplicate)

    def get_submodule(self, target: str) -> nn.Module:
        """As `nn.Module.get_submodule`, for the synapses too."""
        first, _, rest = target.partition(".")
        found: nn.Module = (
            self.reclra.synapses.get_submodule(rest) if first == PREFIX else super().get_submodule(target)  # type: ignore[misc]
        )
        return found

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[misc]
        self.reclra.synapses._apply(fn, recurse)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[misc]
        if self.reclra.save_synapses:
            self.reclra.synapses.state_dict(destination=destination, prefix=f"{prefix}{PREFIX}.", keep_vars=keep_vars)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, unexpected: Any, faults: Any
    ) -> None:
        super()._load_from_state_dict(  # type: ignore[misc]
            state_dict, prefix, metadata, strict, missing, unexpected, faults
        )
        start = f"{prefix}{PREFIX}."
        unexpected[:] = [k for k in unexpected if not k.startswith(start)]
        held = {k[len(start) :]: v for k, v in state_dict.items() if k.startswith(start)}
        if held:  # a checkpoint of the model as it was has none
            self.reclra.load_synapses(held, faults)

    def __init_subclass__(cls, **options: Any) -> None:
        """The model's own class hears of no subclass: it may keep a register, or ask for keywords."""

    def _replicate_for_data_parallel(self) -> Any:
        self.reclra.refuse_replicas()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        with plain(self) as attachment:
            twin = copy.deepcopy(self, memo)
        return swapped(twin, attachment.copied(twin, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        with plain(self) as attachment:
            made, given, state, *items = (*self.__reduce_ex__(protocol), None, None, None)[:5]
        return _unmade, (made, given), (state, attachment.saved()), *items, _remade


def _unmade(made: Any, given: tuple[Any, ...]) -> Any:
    """The object that pickling starts from, of the model's own class."""
    return made(*given)


def _remade(model: Any, saved: Any) -> None:
    """Put back what pickling took apart: the model's own state, then what was attached to it."""
    state, attachment = saved
    if hasattr(model, "__setstate__"):
        model.__setstate__(state)
    else:
        model.__dict__.update(state)
    swapped(model, attachment.onto(model))


@functools.cache
def attached_class(kind: Any) -> type[Any]:
    """The class `kind` with the methods of Attached in front, and a forward pass of the same signature."""

    @functools.wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.training and torch.is_grad_enabled():
            return self.reclra.forward(args, kwargs)
        return kind.forward(self, *args, **kwargs)

    own: dict[str, Any] = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    own["forward"] = torch.compiler.disable(forward)  # type: ignore[no-untyped-call]
    return type(kind.__name__, (Attached, kind), own)


def swapped(model: Any, attachment: Any) -> Any:
    """`model` with the class that runs `attachment`."""
    own: Any = type(model)
    kind = attached_class(own)
    model.__dict__[PREFIX] = attachment
    model.__class__ = kind
    return model


def restored(model: Any) -> Any:
    """`model` with its own class again; what was attached. Raises UserError (A011) where its class is another."""
    kinds = type(model).__mro__
    if kinds[1] is not Attached:
        message = f"something has changed the class of this {kinds[0].__name__} since it was attached"
        raise UserError(Fault("A011", message, fix="undo that first"))
    model.__class__ = kinds[2]
    return model.__dict__.pop(PREFIX)


@contextlib.contextmanager
def plain(model: Any) -> Iterator[Any]:
    """Inside, the model is of its own class; gives what is attached to it."""
    kind, attachment = type(model), restored(model)
    try:
        yield attachment
    finally:
        model.__dict__[PREFIX] = attachment
        model.__class__ = kind


@contextlib.contextmanager
def unspoilt(model: nn.Module) -> Iterator[None]:
    """Buffers that forward passes inside change (a spectral norm's vectors, say) have their values again after it."""
    kept = [(b, b.detach().clone()) for b in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


@contextlib.contextmanager
def own_forward(model: Any) -> Iterator[None]:
    """Inside, the class's forward pass stands, not one that a library has put onto the object for a while."""
    kept = {"forward": model.__dict__.pop("forward")} if "forward" in model.__dict__ else {}
    try:
        yield
    finally:
        model.__dict__.update(kept)


def is_attached(model: nn.Module) -> bool:
    """True for a model that is attached."""
    return isinstance(model, Attached)
