"""Which of a model's outputs the loss is computed from."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from reclra_compile.errors import Fault, Location, ModelError, nearest
from reclra_compile.frontend.user_code import shown

Path = tuple[str | int, ...]


class Joined(tuple[Path, ...]):
    """Several outputs taken as one: each flattened to a row a sample, side by side."""


#: asks for all floating-point outputs together
ALL = "*"

#: what libraries call the output that the loss is computed from
USUAL = "logits"


def choose(result: Any, output: str | int | None, model: nn.Module) -> Path | Joined:
    """Where in `result`, what the model returns, the chosen tensor is; raises ModelError (M202) with the choices.

    Without a choice: the only floating-point tensor, or the one named 'logits'. `ALL`: all of them.
    """
    found = [(path, t) for path, t in leaves(result) if t.is_floating_point()]
    if output == ALL and len(found) > 1:
        return Joined(path for path, _ in found)
    output = None if output == ALL else output
    if output is not None:
        return _named(found, output, model)
    if len(found) == 1:
        return found[0][0]
    for path, _ in found:
        if path == (USUAL,):
            return path
    what = f"{len(found)} floating-point tensors" if found else "no floating-point tensor"
    raise ModelError(
        Fault(
            "M202",
            f"the model returns {what}, and the loss is computed from one{_listed(found)}",
            returned_at(model),
            _how(found[0][0]) if found else "return the tensor that the loss is computed from",
        )
    )


def _named(found: list[tuple[Path, Tensor]], output: str | int, model: nn.Module) -> Path:
    names = [_name(path) for path, _ in found]
    if str(output) in names:
        return found[names.index(str(output))][0]
    if str(output).isdigit() and int(output) < len(found):
        return found[int(output)][0]
    raise ModelError(
        Fault(
            "M202",
            f"the model has no floating-point output '{output}'{_listed(found)}",
            returned_at(model),
            nearest(str(output), names) or "return the tensor that the loss is computed from",
        )
    )


def _how(path: Path) -> str:
    name = _name(path)
    given = name if name.isdigit() else repr(name)
    return f"choose one: compile(…, output={given}), or --output {name}; rc.attach learns from all"


def _listed(found: list[tuple[Path, Tensor]]) -> str:
    return ": " + ", ".join(f"{_name(path)} {tuple(t.shape)}" for path, t in found) if found else ""


def _name(path: Path) -> str:
    return ".".join(map(str, path)) or "0"


def leaves(result: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Every tensor in `result`, in order, with the keys, positions and fields that lead to it."""
    if isinstance(result, Tensor):
        yield path, result
        return
    for key, value in _items(result):
        yield from leaves(value, (*path, key))


def _items(value: Any) -> list[tuple[str | int, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (tuple, list)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    return []


def pick(result: Any, path: Path | Joined) -> Any:
    """The part of `result` at `path`, or the parts joined."""
    parts = parts_of(result, path)
    return join(*parts) if isinstance(parts, tuple) else parts


def parts_of(result: Any, path: Path | Joined) -> Any:
    """The part of `result` at `path`, or a tuple of parts; `result` may also be what a traced graph returns."""
    if isinstance(path, Joined):
        return tuple(parts_of(result, p) for p in path)
    for key in path:
        result = _part(result, key)
    return result


def join(*parts: Tensor) -> Tensor:
    """Outputs (N, …) side by side, (N, values of all)."""
    return torch.cat([p.reshape(len(p), -1) for p in parts], 1)


def joined(graph: fx.Graph) -> None:
    """Let a graph that returns several outputs return them joined."""
    output = next(n for n in graph.nodes if n.op == "output")
    if isinstance(output.args[0], (tuple, list)):
        with graph.inserting_before(output):
            output.args = (graph.call_function(join, tuple(output.args[0])),)


def _part(value: Any, key: str | int) -> Any:
    if isinstance(value, fx.Node):  # a dataclass that the graph builds
        names = [f.name for f in dataclasses.fields(value.target)]  # type: ignore[arg-type]
        return value.kwargs[str(key)] if str(key) in value.kwargs else value.args[names.index(str(key))]
    if isinstance(value, Mapping) or (isinstance(key, int) and isinstance(value, (tuple, list))):
        return value[key]  # type: ignore[index]
    return getattr(value, str(key))


def forward_at(model: nn.Module) -> Location | None:
    """Where the model's forward() begins; None where there is no source."""
    try:
        forward = inspect.unwrap(type(model).forward)
        return Location(shown(inspect.getsourcefile(forward) or "?"), inspect.getsourcelines(forward)[1])
    except (OSError, TypeError):
        return None


def returned_at(model: nn.Module) -> Location | None:
    """The last `return` of the model's forward(), or its first line; None where there is no source."""
    try:
        forward = inspect.unwrap(type(model).forward)
        lines, first = inspect.getsourcelines(forward)
        returns = [n.lineno for n in ast.walk(ast.parse(textwrap.dedent("".join(lines)))) if isinstance(n, ast.Return)]
        line = first + max(returns, default=1) - 1
        return Location(shown(inspect.getsourcefile(forward) or "?"), line)
    except (OSError, TypeError, SyntaxError):
        return None
