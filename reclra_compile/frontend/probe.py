"""Does a traced graph compute what its model computes? Run both from equal states and compare.

torch.fx is silently wrong where the forward pass changes Python state that it reads again, or writes
into a view of a tensor. Both run twice in a row, on the example inputs and on others, as copies:
nothing of the model changes.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from reclra_compile.errors import Fault, Location, ModelError
from reclra_compile.frontend.user_code import line_of, shown, source_line, summary


def probe(model: nn.Module, graph: fx.GraphModule, inputs: tuple[Any, ...]) -> None:
    """Compare outputs and buffers of two runs; raises ModelError (M010 where the model itself fails, M105).

    Models on the meta device have no values to compare and pass.
    """
    if any(t.is_meta for t in (*model.parameters(), *model.buffers(), *_flat(inputs))):
        return
    runs = (inputs, _others(inputs))
    twin = copy.deepcopy(model)
    theirs = _run_model(twin if twin.training else twin.train(), runs)
    # The graph runs on buffers and Python state of its own, with the twin's parameters.
    memo: dict[int, Any] = {id(p): q for p, q in zip(model.parameters(), twin.parameters(), strict=True)}
    ours = _run_graph(copy.deepcopy(model, memo), copy.deepcopy(graph, memo), runs)
    if len(ours) != len(theirs) or not all(_close(a, b) for a, b in zip(ours, theirs, strict=True)):
        raise ModelError(
            Fault(
                "M105",
                f"the traced graph of {type(model).__name__} does not compute what the model computes",
                _forward_location(model),
                "the forward pass probably changes Python state that it reads again, or writes into a view of a "
                "tensor; keep state in buffers and return new values instead",
            )
        )


def model_fails(error: Exception, inputs: tuple[Any, ...], called: str, where: Location | None = None) -> Fault:
    """The report (M010) of a model that fails on its example inputs, which the user knows as `called`.

    It names the user's line in the traceback; `where` is the place if there is none.
    """
    line = line_of(error)
    quoted = f": `{source_line(line)}`" if line else ""
    shapes = " and ".join(str(tuple(x.shape)) for x in inputs)
    return Fault(
        "M010",
        f"the model fails on its example inputs of shape {shapes} ({summary(error)}){quoted}",
        line or where,
        f"make {called} and the model fit each other: one tensor for each argument, batch first",
    )


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6, equal_nan=True)


def _others(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x) if x.is_floating_point() else x
        for x in inputs
    )


def _run_model(model: nn.Module, runs: tuple[tuple[Any, ...], ...]) -> list[Tensor]:
    try:
        return [t for inputs in runs for t in _seeded(model, inputs)] + list(model.buffers())
    except Exception as error:
        raise ModelError(model_fails(error, runs[0], "the example inputs")) from error


def _run_graph(model: nn.Module, graph: fx.GraphModule, runs: tuple[tuple[Any, ...], ...]) -> list[Tensor]:
    """`graph` was copied together with `model`: its modules, and so the buffers it changes, are the model's."""
    if not model.training:
        model.train()
    return [t for inputs in runs for t in _seeded(graph, inputs)] + list(model.buffers())


def _seeded(module: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(_flat(module(*inputs)))


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from _flat(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from _flat(v)


def _forward_location(model: nn.Module) -> Location | None:
    try:
        forward = inspect.unwrap(type(model).forward)
        return Location(shown(inspect.getsourcefile(forward) or "?"), inspect.getsourcelines(forward)[1])
    except (OSError, TypeError):
        return None
