"""Load a model and its example inputs from `path/to/model.py[:attr]` or `package.module:attr`.

Loading runs the user's file, as `python model.py` would.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from reclra_compile.errors import Fault, Location, ModelError, nearest
from reclra_compile.frontend.trace import user_frame

USUAL = ("model", "build_model")


@dataclass(frozen=True)
class Loaded:
    """A loaded model, its example inputs (a tuple, batch first), and a short name for reports."""

    model: nn.Module
    inputs: tuple[Any, ...]
    name: str


def load_model(reference: str) -> Loaded:
    """Load MODEL; raises ModelError (M001–M008) that names the file, the line and the choices."""
    path, _, attribute = reference.partition(":") if not _is_windows(reference) else (reference, "", "")
    module = _from_file(Path(path)) if path.endswith(".py") or "/" in path else _from_package(path)
    builder = _choose(module, path, attribute)
    model = _built(builder, attribute or "build_model", path)
    if not isinstance(model, nn.Module):
        raise ModelError(
            Fault("M006", f"'{attribute or 'model'}' is {type(model).__name__}, not a torch.nn.Module", Location(path))
        )
    return Loaded(model, _inputs(module, path), attribute or Path(path).stem)


def _is_windows(reference: str) -> bool:
    return reference[1:3] == ":\\" and reference.count(":") == 1


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        near = nearest(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        raise ModelError(Fault("M001", f"the model file {found}", Location(str(path)), near))
    name = f"_reclra_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(Fault("M001", "this is not a Python file", Location(str(path)), "pass a .py file"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes defined there can be pickled and inspected
    sys.path.insert(0, str(path.parent.resolve()))  # the file may import its neighbours
    try:
        _run(lambda: spec.loader.exec_module(module), str(path))  # type: ignore[union-attr]
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _from_package(name: str) -> ModuleType:
    found: list[ModuleType] = []
    _run(lambda: found.append(importlib.import_module(name)), name)
    return found[0]


def _run(action: Callable[[], Any], file: str) -> None:
    try:
        action()
    except SyntaxError as error:
        where = Location(error.filename or file, error.lineno or 0, error.offset or 0)
        raise ModelError(Fault("M002", f"syntax error: {error.msg}", where)) from error
    except ModuleNotFoundError as error:
        raise ModelError(
            Fault("M003", f"{error}", user_frame(error) or Location(file),
                  "pass a path ending in .py, or install the missing package")  # fmt: skip
        ) from error
    except (Exception, SystemExit) as error:
        raise ModelError(
            Fault("M003", f"running the model file failed ({type(error).__name__}: {error})",
                  user_frame(error) or Location(file))  # fmt: skip
        ) from error


def _choose(module: ModuleType, path: str, attribute: str) -> Any:
    candidates = _candidates(module)
    if attribute:
        if not hasattr(module, attribute):
            raise ModelError(Fault("M004", f"there is no '{attribute}'", Location(path), nearest(attribute, candidates)))
        return getattr(module, attribute)
    usual = [n for n in USUAL if hasattr(module, n)]
    if len(usual) > 1:
        raise ModelError(
            Fault("M005", "the file has both `model` and `build_model`", Location(path),
                  f"choose one: {path}:model or {path}:build_model")  # fmt: skip
        )
    if not usual:
        if candidates:
            listed = ", ".join(f"{path}:{n}" for n in candidates[:8])
            raise ModelError(
                Fault("M005", "the file has no `model` or `build_model()`, but other models", Location(path),
                      f"choose one: {listed}")  # fmt: skip
            )
        raise ModelError(
            Fault("M004", "no model found", Location(path),
                  "define `model = …` (a torch.nn.Module) or `def build_model(): return …`")  # fmt: skip
        )
    return getattr(module, usual[0])


def _candidates(module: ModuleType) -> list[str]:
    """Modules, module classes and argument-free functions that the file itself defines."""
    names: list[str] = []
    for name, value in vars(module).items():
        if name.startswith("_") or name == "example_inputs":
            continue
        own = getattr(value, "__module__", None) == module.__name__
        if isinstance(value, nn.Module) or (own and callable(value) and _callable_without_arguments(value)):
            names.append(name)
    return names


def _callable_without_arguments(value: Any) -> bool:
    if inspect.isclass(value) and not issubclass(value, nn.Module):
        return False
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def _built(value: Any, name: str, path: str) -> Any:
    if isinstance(value, nn.Module) or not callable(value):
        return value
    if not _callable_without_arguments(value):
        raise ModelError(
            Fault("M007", f"'{name}' needs arguments", Location(path), "give its arguments defaults, or wrap it")
        )
    made: list[Any] = []
    _run(lambda: made.append(value()), path)
    return made[0]


def _inputs(module: ModuleType, path: str) -> tuple[Any, ...]:
    if not hasattr(module, "example_inputs"):
        raise ModelError(
            Fault("M008", "no example inputs found", Location(path),
                  "define `example_inputs = torch.zeros(batch, …)` (a tensor or a tuple), or a function returning it")
        )  # fmt: skip
    value = _built(module.example_inputs, "example_inputs", path)
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, (tuple, list)) and value and all(isinstance(v, Tensor) for v in value):
        return tuple(value)
    raise ModelError(
        Fault("M008", f"`example_inputs` is {type(value).__name__}, not a tensor or a tuple of tensors", Location(path))
    )
