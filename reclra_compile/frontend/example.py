"""The example inputs of a model, as its forward() takes them and as a graph takes them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reclra_compile.errors import Fault, ModelError


@dataclass(frozen=True)
class Example:
    """Positional inputs, or `named` ones in the order of forward(); named values that are no tensors are constants."""

    args: tuple[Tensor, ...]
    named: dict[str, Any]

    @property
    def keywords(self) -> tuple[str, ...]:
        """Names of the tensors given by name, in order."""
        return tuple(k for k, v in self.named.items() if isinstance(v, Tensor))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in the order in which a graph takes them."""
        return (*self.args, *(self.named[k] for k in self.keywords))

    def placed(self, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """Arguments of forward() with other tensors, given in the order of `tensors`."""
        rest = dict(zip(self.keywords, tensors[len(self.args) :], strict=True))
        return tuple(tensors[: len(self.args)]), {**self.named, **rest}

    def to(self, device: str) -> Example:
        """The example with all its tensors on `device`."""
        args, named = self.placed([t.to(device) for t in self.tensors])
        return Example(args, named)


def example_of(model: nn.Module, inputs: Any) -> Example:
    """Check the example inputs a user gave; raises ModelError (M103) that names each wrong one."""
    if isinstance(inputs, Mapping):
        order = {name: k for k, name in enumerate(inspect.signature(model.forward).parameters)}
        named = dict(sorted(inputs.items(), key=lambda item: order.get(str(item[0]), len(order))))
        given = {f"'{k}'": v for k, v in named.items() if not isinstance(v, (bool, int, float, str, type(None)))}
        example = Example((), named)
    else:
        args = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
        given = {str(k): v for k, v in enumerate(args)}
        example = Example(args, {})
    faults = [_fault(name, v) for name, v in given.items() if not isinstance(v, Tensor) or v.ndim == 0]
    if not given:
        faults = [Fault("M103", "no example inputs", fix="pass at least one tensor")]
    if faults:
        raise ModelError(faults)
    return example.to("meta") if any(p.is_meta for p in model.parameters()) else example


def _fault(name: str, value: Any) -> Fault:
    if not isinstance(value, Tensor):
        return Fault(
            "M103", f"example input {name} is {type(value).__name__}, not a tensor", fix="pass tensors, batch first"
        )
    return Fault(
        "M103", f"example input {name} has no batch dimension", fix="give every input a leading batch dimension"
    )


def with_batch(example: Example, batch: int, seed: int | None = None) -> Example:
    """The example with its samples repeated or cut to `batch`; with a seed, floating-point values are drawn anew."""
    size = example.tensors[0].shape[0]
    generator = None if seed is None else torch.Generator().manual_seed(seed)

    def sized(x: Tensor) -> Tensor:
        if x.shape[0] == size:
            x = torch.cat([x] * (-(-batch // size)))[:batch]
        if generator is None or not x.is_floating_point() or x.is_meta:
            return x
        return torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)

    args, named = example.placed([sized(x) for x in example.tensors])
    return Example(args, named)
