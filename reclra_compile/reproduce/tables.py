"""Finding and reading table files, with every fault of one in one report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reclra_compile.errors import Fault, Location, UserError, WiringError, nearest
from reclra_compile.reproduce.schema import Numbers, Row, ScaleSpec, TableFile
from reclra_compile.spec.schema import TrainingSpec
from reclra_compile.spec.yaml_marks import Document, KeyPath, read_text, read_yaml

CODES: dict[str, str] = {
    "R001": "the table file cannot be read, or is not valid YAML",
    "R002": "a key or value of the table file is wrong",
    "R003": "no such table, row or data set",
    "R004": "results of an earlier run are in the folder",
    "R005": "a row's run ended without a result",
    "R006": "a setting to search over cannot be used",
    "R007": "the settings cannot be written into the table file",
    "R008": "a file of results or trials is damaged",
}

_HERE = Path(__file__).parents[1]
_TABLES = (_HERE / "paper", _HERE.parent / "benchmarks" / "paper")
_EXAMPLES = (_HERE / "examples", _HERE.parent / "examples")
_PARTS: dict[str, type[BaseModel]] = {"settings": TrainingSpec, "paper": Numbers, "rows": Row}


@dataclass(frozen=True)
class Table:
    """A table, the file it came from, and where each of its values stands there."""

    spec: TableFile
    file: Path
    marks: dict[KeyPath, Location] = field(default_factory=dict)

    def where(self, *path: str | int) -> Location:
        """The place of the value at `path`, or of what is around it."""
        for n in range(len(path), -1, -1):
            if path[:n] in self.marks:
                return self.marks[path[:n]]
        return Location(str(self.file))

    def model(self, name: str) -> str:
        """The model `file:builder` with the path of its file: beside the table, or one of the examples."""
        file, colon, builder = name.partition(":")
        for folder in (self.file.parent, *_EXAMPLES):
            if (folder / file).is_file():
                return f"{folder / file}{colon}{builder}"
        return name

    def wiring_file(self, name: str) -> str:
        """A wiring's path where it is a file beside the table; its name otherwise."""
        beside = self.file.parent / name
        return str(beside) if name.endswith((".yaml", ".yml")) and beside.is_file() else name


def shipped() -> dict[str, Path]:
    """The tables that come with the package, by name."""
    for folder in _TABLES:
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def trials_folder(table: Table) -> Path:
    """Where trials of a table are kept: beside its file, but never among the files of an installed package."""
    return Path("trials") if table.file.parent == _TABLES[0] else table.file.parent / "trials"


def load_table(source: str | os.PathLike[str]) -> Table:
    """The table of a shipped name or a file; raises UserError (R001 to R003) with every fault found."""
    file = Path(source)
    if file.suffix not in (".yaml", ".yml"):
        known = shipped()
        if str(source) not in known:
            raise UserError(Fault("R003", f"there is no table '{source}'", fix=nearest(str(source), list(known))))
        file = known[str(source)]
    try:
        document = read_yaml(read_text(str(file)), str(file))
    except WiringError as error:
        raise UserError(replace(f, code="R001") for f in error.faults) from error
    faults = [replace(f, code="R001") for f in document.faults]
    if document.readable:
        try:
            spec = TableFile.model_validate(document.data)
            faults += _twice(spec, document)
        except ValidationError as error:
            faults += [_fault(e, document, str(file)) for e in error.errors(include_url=False)]
    if faults:
        raise UserError(sorted(faults, key=lambda f: (f.where.line, f.where.column) if f.where else (0, 0)))
    return Table(spec, file, document.marks)


def _twice(spec: TableFile, document: Document) -> list[Fault]:
    """A fault for every entry that stands for the same row and data set as an earlier one."""
    seen: set[tuple[str, str]] = set()
    faults = []
    for k, row in enumerate(spec.rows):
        if (row.row, row.data) in seen:
            where = document.marks.get(("rows", k))
            faults.append(Fault("R002", f"the row '{row.row}' on {row.data} is there twice", where, "remove one"))
        seen.add((row.row, row.data))
    return faults


def _fault(error: ErrorDetails, document: Document, file: str) -> Fault:
    path: KeyPath = tuple(p for p in error["loc"] if p not in ("str", "dict[str,any]"))
    kind, key = error["type"], str(path[-1]) if path else ""
    marks = document.keys if kind == "extra_forbidden" else document.marks
    where = next((marks[path[:n]] for n in range(len(path), -1, -1) if path[:n] in marks), None)
    where = where or document.marks.get(()) or Location(file)
    if kind == "missing":
        return Fault("R002", f"the key '{key}' is missing", where, f"add '{key}: …'")
    if kind == "extra_forbidden":
        return Fault("R002", f"unknown key '{key}'", where, nearest(key, list(_part(path[:-1]).model_fields)))
    message = str(error.get("ctx", {}).get("message", "")) or error["msg"][:1].lower() + error["msg"][1:]
    return Fault("R002", f"'{key}': {message}", where)


def _part(path: Sequence[str | int]) -> type[BaseModel]:
    """The part of the schema that a mapping at `path` is read with."""
    names = [p for p in path if isinstance(p, str)]
    if not names:
        return TableFile
    return _PARTS.get(names[-1], ScaleSpec if "scales" in names else TableFile)
