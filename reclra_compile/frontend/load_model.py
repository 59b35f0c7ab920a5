"""Load a model and its example inputs from `path/to/model.py[:attr]` or `package.module:attr`.

Loading runs the user's file, each time anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from reclra_compile.errors import Fault, Location, ModelError, nearest
from reclra_compile.frontend import user_code
from reclra_compile.frontend.first_run import run_once
from reclra_compile.frontend.user_code import place, run

CODES: dict[str, str] = {
    "M001": "the model file cannot be found",
    "M002": "the model file is not valid Python",
    "M003": "the model file fails, or ends the program, while it runs",
    "M004": "the model is not in the file",
    "M005": "the file has several models",
    "M006": "what is found is not a torch.nn.Module",
    "M007": "a function or class needs arguments",
    "M008": "the example inputs are missing or not tensors",
    "M009": "the model cannot be copied",
    "M010": "the model fails on its example inputs",
}

USUAL = ("model", "build_model")
RESERVED = (*USUAL, "example_inputs", "loss_fn", "data")
MANY = 8


@dataclass(frozen=True)
class Loaded:
    """A loaded model, its example inputs (a tuple, or a dict by name; batch first), and where its file names it."""

    model: nn.Module
    inputs: tuple[Any, ...] | dict[str, Any]
    where: Location

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The example inputs in order, named or not."""
        return tuple(self.inputs.values()) if isinstance(self.inputs, dict) else self.inputs

    def inputs_on(self, device: str) -> tuple[Any, ...] | dict[str, Any]:
        """The example inputs on a device."""
        if isinstance(self.inputs, dict):
            return {name: x.to(device) for name, x in self.inputs.items()}
        return tuple(x.to(device) for x in self.inputs)
    module: ModuleType | None = None

    def extra(self, name: str) -> Any:
        """What the model's file gives under another name (`loss_fn`, `data`), or None."""
        return getattr(self.module, name, None)

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Inside, a ModelError without a place gets the model's place in its file."""
        try:
            yield
        except ModelError as error:
            faults = [f if f.where else dataclasses.replace(f, where=self.where) for f in error.faults]
            raise ModelError(faults) from error


def load_model(
    reference: str, meta: bool = False, building: contextlib.AbstractContextManager[Any] | None = None
) -> Loaded:
    """Load MODEL and run it once; raises ModelError (M001–M010) that names the file, the line and the choices.

    `meta`: what the file makes has shapes but no memory, so that a model of any size can be planned. `building` is
    around the call of a function that makes the model, but not around the rest of the file.
    """
    path, attribute = _split(reference)
    is_file = path.endswith(".py") or "/" in path or "\\" in path
    if is_file and not Path(path).is_file():
        raise ModelError(_no_file(Path(path)))
    device = torch.device("meta") if meta else contextlib.nullcontext()
    with user_code.session(Path(path).parent if is_file else Path.cwd()), device:
        module = _from_file(Path(path)) if is_file else _from_package(path)
        attribute = attribute or _usual(module, path)
        return _loaded(module, path, attribute, building or contextlib.nullcontext())


def _loaded(
    module: ModuleType, path: str, attribute: str, building: contextlib.AbstractContextManager[Any]
) -> Loaded:
    if not hasattr(module, attribute):
        raise ModelError(
            Fault("M004", f"there is no '{attribute}' in this file", place(module),
                  nearest(attribute, _models(module)) or "define a torch.nn.Module or a function that returns one")
        )
    with building:
        model = _built(module, attribute)
    if not isinstance(model, nn.Module):
        raise ModelError(_not_a_model(module, path, attribute, model))
    inputs = _carried(model) or _inputs(module)
    run_once(model, inputs, module)
    return Loaded(model, inputs, place(module, attribute), module)


def _split(reference: str) -> tuple[str, str]:
    """Path and attribute; a colon belongs to the path where no name follows it (C:\\model.py)."""
    path, colon, attribute = reference.rpartition(":")
    if colon and (attribute.isidentifier() or not attribute):
        return path, attribute
    return reference, ""


def _from_file(path: Path) -> ModuleType:
    name = f"_reclra_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(Fault("M001", "this is not a Python file", Location(str(path)), "name a .py file"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes defined there can be pickled and inspected
    loader = spec.loader
    run(lambda: loader.exec_module(module), str(path), "running the file")
    return module


def _no_file(path: Path) -> Fault:
    where = Location(str(path))
    if path.is_dir():
        inside = sorted(str(p) for p in path.glob("*.py") if p.name != "__init__.py")
        return Fault("M001", "the model is a folder, not a file", where, f"name a .py file in it{_choices(inside)}")
    if not path.parent.is_dir():
        return Fault("M001", f"there is no folder '{path.parent}'", where, "correct the path")
    beside = sorted(p.name for p in path.parent.glob("*.py"))
    near = nearest(path.name, beside) if beside else ""
    fix = near if near.startswith("did you mean") else f"name a .py file{_choices(beside)}"
    return Fault("M001", "the model file does not exist", where, fix)


def _choices(names: list[str]) -> str:
    return f": {', '.join(names[:MANY])}{', …' if len(names) > MANY else ''}" if names else ""


def _from_package(name: str) -> ModuleType:
    try:
        module = run(lambda: importlib.import_module(name), name, "importing the module")
    except ModelError as error:
        cause = error.__cause__
        if not isinstance(cause, (ModuleNotFoundError, ValueError, TypeError)) or user_code.line_of(cause):
            raise
        files = sorted(p.name for p in Path().glob("*.py"))
        near = nearest(f"{name}.py", files) if files else ""
        fix = near if near.startswith("did you mean") else "a model in a file is path/to/model.py, with .py at its end"
        raise ModelError(Fault("M001", f"there is no module '{name}'", fix=fix)) from error
    if module.__spec__ is not None and module.__spec__.origin is None:
        raise ModelError(_no_file(Path(*name.split("."))))  # a folder without __init__.py imports as an empty module
    return module


def _usual(module: ModuleType, path: str) -> str:
    """The name of the file's model where the user gives none."""
    usual = [n for n in USUAL if hasattr(module, n)]
    if len(usual) == 1:
        return usual[0]
    if usual:
        raise ModelError(
            Fault("M005", "the file has both `model` and `build_model`", place(module, "build_model"),
                  f"choose one: {path}:model or {path}:build_model")
        )
    names = _models(module)
    if not names:
        raise ModelError(
            Fault("M004", "there is no model in this file", place(module),
                  "define `model = …` (a torch.nn.Module) or `def build_model(): return …`")
        )
    listed = " or ".join(f"{path}:{n}" for n in names[:MANY])
    more = f" or one of {len(names) - MANY} more" if len(names) > MANY else ""
    found = "another model" if len(names) == 1 else f"{len(names)} other models"
    raise ModelError(
        Fault("M005", f"the file has no `model` or `build_model()`, but {found}", place(module),
              f"say which: {listed}{more}")
    )


def _models(module: ModuleType) -> list[str]:
    """Modules, module classes and argument-free functions that the file itself defines."""
    names: list[str] = []
    for name, value in vars(module).items():
        if name.startswith("_") or name == "example_inputs":
            continue
        own = getattr(value, "__module__", None) == module.__name__
        if isinstance(value, nn.Module) or (own and _is_builder(value)):
            names.append(name)
    return names


def _is_builder(value: Any) -> bool:
    if inspect.isclass(value) and not issubclass(value, nn.Module):
        return False
    if not inspect.isclass(value) and getattr(value, "__annotations__", {}).get("return", "") in (None, "None"):
        return False  # a program's main(), say
    return callable(value) and not _needed(value)


def _needed(value: Any) -> list[str]:
    """Names of the arguments that a function or class cannot be called without."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _built(module: ModuleType, name: str) -> Any:
    value = getattr(module, name)
    if isinstance(value, (nn.Module, Tensor)) or not callable(value):
        return value
    where = place(module, name)
    needed = _needed(value)
    if needed:
        what, them = ("an argument", "it a default") if len(needed) == 1 else ("arguments", "them defaults")
        call = f", or define `def build_model(): return {name}({needed[0]}=…)`" if name not in RESERVED else ""
        raise ModelError(Fault("M007", f"'{name}' needs {what}: {', '.join(needed)}", where, f"give {them}{call}"))
    return run(value, where.file, f"calling {name}()")


def _not_a_model(module: ModuleType, path: str, name: str, value: Any) -> Fault:
    made = callable(getattr(module, name)) and not isinstance(getattr(module, name), nn.Module)
    subject = f"'{name}()' returns" if made else f"'{name}' is"
    others = [n for n in _models(module) if n != name]
    fix = f"make it a torch.nn.Module{f', or name another: {path}:{others[0]}' if others else ''}"
    if made:
        fix = "return the model from it"
    return Fault("M006", f"{subject} {_kind(value)}, not a torch.nn.Module", place(module, name), fix)


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _carried(model: nn.Module) -> tuple[Any, ...]:
    """Example inputs that the model itself carries, under the name that Lightning gives them."""
    own = getattr(model, "example_input_array", None)
    given = (own,) if isinstance(own, Tensor) else own
    if isinstance(given, tuple) and all(isinstance(x, Tensor) and x.ndim for x in given):
        return given
    return ()


def _inputs(module: ModuleType) -> tuple[Any, ...] | dict[str, Any]:
    if not hasattr(module, "example_inputs"):
        found = [n for n, v in vars(module).items() if isinstance(v, Tensor) and not n.startswith("_")]
        rename = f"; rename {' or '.join(repr(n) for n in found[:MANY])} if that is it" if found else ""
        raise ModelError(
            Fault("M008", "there is no `example_inputs` in this file", place(module),
                  "define `example_inputs = torch.zeros(batch, …)`, a tuple or a dict of tensors, or a function that "
                  f"returns them{rename}")
        )  # fmt: skip
    value = _built(module, "example_inputs")
    value = (value,) if isinstance(value, Tensor) else value
    named = {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}
    values = list(named.values()) or value
    if isinstance(values, (tuple, list)) and all(isinstance(v, Tensor) for v in values) and values:
        if all(v.ndim for v in values):
            return named or tuple(values)
        raise ModelError(
            Fault("M008", "`example_inputs` is a single number, without a batch dimension",
                  place(module, "example_inputs"), "the first dimension of every tensor is the batch")
        )
    raise ModelError(
        Fault("M008", f"`example_inputs` is {_content(value)}, not a tensor, or a tuple or dict of tensors",
              place(module, "example_inputs"), "give one tensor for each argument of forward(), batch first")
    )  # fmt: skip


def _content(value: Any) -> str:
    values = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(values, (tuple, list)):
        return _kind(value)
    if not values:
        return f"an empty {type(value).__name__}"
    return f"{_kind(value)} with {_kind(next(v for v in values if not isinstance(v, Tensor)))} in it"
