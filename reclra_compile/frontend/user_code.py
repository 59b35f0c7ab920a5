"""Run the user's Python files: fresh on every load, and with a report where they fail."""

from __future__ import annotations

import ast
import contextlib
import importlib
import linecache
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import torch

import reclra_compile
from reclra_compile.errors import Fault, Location, ModelError, nearest

T = TypeVar("T")

_PACKAGE = os.path.dirname(reclra_compile.__file__)
_PATHS = sysconfig.get_paths()
#: code below these folders is not the user's
_LIBRARY = tuple(
    os.path.join(folder, "")
    for folder in (os.path.dirname(torch.__file__), _PACKAGE, *(_PATHS[k] for k in ("stdlib", "purelib", "platlib")))
)
_SITE = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class _Session:
    """What the last load changed in this interpreter; undone before the next one.

    Modules beside the model's file are run again with it: a model made when such a module is imported
    would otherwise be the one that an earlier run has trained.
    """

    folder: str | None = None
    imported: frozenset[str] = frozenset()


@contextlib.contextmanager
def session(folder: Path) -> Iterator[None]:
    """A load: imports find the modules in `folder`, and every file of the user's runs anew.

    The folder stays importable afterwards, for imports inside forward(), until the next load.
    """
    for name in _Session.imported & sys.modules.keys():
        del sys.modules[name]
    if _Session.folder in sys.path:
        sys.path.remove(str(_Session.folder))
    _Session.folder = str(folder.resolve())
    sys.path.insert(0, _Session.folder)
    importlib.invalidate_caches()
    before = set(sys.modules)
    try:
        yield
    finally:
        new = sys.modules.keys() - before
        _Session.imported = frozenset(name for name in new if is_own(sys.modules[name]))


def is_own(module: ModuleType) -> bool:
    """True where a module is the user's own, not one of a library's."""
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and not _in_library(os.path.abspath(file))


def _in_library(file: str) -> bool:
    return file.startswith((*_LIBRARY, "<")) or any(part in file for part in _SITE)


def shown(file: str) -> str:
    """A path as people write it: relative where it lies in the current folder."""
    inside = file.startswith(os.path.join(os.getcwd(), ""))
    return os.path.relpath(file) if inside else file


def run(action: Callable[[], T], file: str, what: str) -> T:
    """Run user code; raises ModelError (M002, M003) that names the line that fails.

    `what` says what is done, as in "running the file".
    """
    try:
        with _as_program(file):
            return action()
    except SyntaxError as error:
        raise ModelError(_syntax(error, file)) from error
    except ImportError as error:
        raise ModelError(_import(error, file)) from error
    except SystemExit as error:
        where = line_of(error) or Location(file)
        raise ModelError(
            Fault("M003", f"{what} ends the program ({summary(error)}){_quoted(where)}", where,
                  'the file is given no arguments; put what does not build the model below '
                  '`if __name__ == "__main__":`')
        ) from error
    except Exception as error:
        where = line_of(error) or Location(file)
        raise ModelError(
            Fault("M003", f"{what} fails ({summary(error)}){_quoted(where)}", where, "correct this line")
        ) from error


@contextlib.contextmanager
def _as_program(file: str) -> Iterator[None]:
    """The file sees no arguments of ours, and no compiled copies are left beside it."""
    arguments, silent = sys.argv, sys.dont_write_bytecode
    sys.argv, sys.dont_write_bytecode = [file], True
    try:
        yield
    finally:
        sys.argv, sys.dont_write_bytecode = arguments, silent


def summary(error: BaseException) -> str:
    """The kind of an error and the first line of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    text = text if len(text) <= 200 else text[:199] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def line_of(error: BaseException) -> Location | None:
    """The innermost line of the user's own code in an error's traceback; None where there is none."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _in_library(f.filename)]
    return Location(shown(frames[-1].filename), frames[-1].lineno or 0) if frames else None


def source_line(where: Location | None) -> str:
    """The text of a line, '' where it cannot be read."""
    linecache.checkcache()
    return linecache.getline(os.path.abspath(where.file), where.line).strip() if where else ""


def _quoted(where: Location) -> str:
    line = source_line(where)
    return f": `{line}`" if line else ""


def _syntax(error: SyntaxError, file: str) -> Fault:
    where = Location(shown(error.filename or file), error.lineno or 0, error.offset or 0)
    line = (error.text or "").strip()
    return Fault("M002", f"syntax error: {error.msg}" + (f": `{line}`" if line else ""), where, "correct this line")


def _import(error: ImportError, file: str) -> Fault:
    where = line_of(error) or Location(file)
    if "relative import" in str(error):
        return Fault("M003", f"a relative import needs a package{_quoted(where)}", where,
                     "pass the model as package.module:attribute, from the folder that holds the package")  # fmt: skip
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return Fault("M003", f"an import fails ({summary(error)}){_quoted(where)}", where, "correct this line")
    beside = sorted(p.stem for p in Path(where.file).parent.glob("*.py"))
    near = nearest(error.name, beside) if beside else ""
    fix = f"install the package that has '{error.name.partition('.')[0]}' where reclra-compile is installed"
    return Fault("M003", f"there is no module '{error.name}' to import{_quoted(where)}", where,
                 near if near.startswith("did you mean") else fix)  # fmt: skip


def place(module: ModuleType, name: str = "") -> Location:
    """Where the file of `module` binds `name` at its top level; the file alone where it is not found."""
    file = getattr(module, "__file__", None) or module.__name__
    line = 0
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        for statement in ast.parse(Path(file).read_bytes()).body:
            if name and name in _bound(statement):
                line = statement.lineno
    return Location(shown(str(file)), line)


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name for alias in statement.names}
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
