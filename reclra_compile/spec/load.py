"""Loading a wiring from a file, a shipped name or a mapping, with every fault of it in one report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from reclra_compile.errors import Fault, Location, WiringError, nearest
from reclra_compile.spec.explain import clip, explain, found, nearest_key
from reclra_compile.spec.schema import AutoWiring, InnerWiring, NamedWiring, Wiring
from reclra_compile.spec.yaml_marks import Document, KeyPath, read_text, read_yaml

CODES: dict[str, str] = {
    "W001": "the file cannot be found or read",
    "W002": "the file is not valid YAML, or uses YAML that wirings do not",
    "W003": "a key that is not known at this place",
    "W004": "a name (of a kernel, update, rule, shipped wiring, …) that is not known",
    "W005": "a value of the wrong type",
    "W006": "a key or number that is needed and missing",
    "W007": "a value that is out of range",
    "W008": "a key that is given twice",
    "W009": "a file that is too large, too deep or refers to itself",
    "W010": "a version of the format that this build does not read",
    "W011": "a file that is empty or not a mapping",
    "W012": "a selector that does not say which regions in exactly one way",
    "W013": "a YAML tag that would make something other than plain data",
    "W045": "a file with both `pathways` and `auto`",
    "W046": "requests under `auto` that contradict each other",
}

_START = "start with 'version: 1' and a list 'pathways:'"
_SHORT = ("kernel", "init", "update", "granularity")  # fields with the form {word: number}
_DIRECTORIES = (Path(__file__).parents[1] / "wiring", Path(__file__).parents[2] / "wiring")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A wiring, the file it came from, and where each of its values stands there.

    `unreached`: what becomes of regions that no error reaches: refuse, freeze or backprop.
    """

    wiring: InnerWiring
    file: str
    marks: Mapping[KeyPath, Location] = field(default_factory=lambda: MappingProxyType({}))
    prefix: KeyPath = ()
    unreached: str = "refuse"

    def where(self, *path: str | int) -> Location | None:
        """The place of the value at `path`, or of what is around it; `source` may stand for `from`."""
        path = (*self.prefix, *path)
        if not self.marks:
            return _unmarked(self.file, ["from" if p == "source" else p for p in path if p != "names"])
        known: KeyPath = ()
        for step in path:
            if (*known, step) in self.marks:
                known = (*known, step)
            elif step == "source" and (*known, "from") in self.marks:
                known = (*known, "from")
            elif step != "names":
                break
        return self.marks.get(known)

    def inner(self, wiring: InnerWiring, *path: str | int) -> Loaded:
        """The wiring at `path`, which stands there or in the file it names; raises WiringError."""
        if not isinstance(wiring, NamedWiring):
            return replace(self, wiring=wiring, prefix=(*self.prefix, *path))
        beside = os.path.join(os.path.dirname(self.file), wiring.reference)
        try:
            return load_wiring(beside if _is_path(wiring.reference) and os.path.isfile(beside) else wiring.reference)
        except WiringError as error:
            where = self.where(*path)
            raise WiringError(f if f.where else replace(f, where=where) for f in error.faults) from error


def load_wiring(source: str | os.PathLike[str] | Mapping[str, object] | Wiring | Loaded) -> Loaded:
    """The wiring of a YAML file, a shipped name or a mapping; raises WiringError with every fault found.

    What is loaded is given back as it is: it knows its file, and what stands beside that.
    """
    if isinstance(source, Loaded):
        return source
    if isinstance(source, Wiring):
        return Loaded(source, "<wiring>")
    if isinstance(source, Mapping):
        return Loaded(_validated(Document(dict(source)), "<dict>"), "<dict>")
    if isinstance(source, str) and not _is_path(source):
        source = _shipped_path(source)
    file = os.fsdecode(source)
    return load_text(read_text(file), file)


def load_text(text: str, file: str) -> Loaded:
    """The wiring of a YAML text, which stands in `file`; raises WiringError with every fault found."""
    document = read_yaml(text, file)
    return Loaded(_validated(document, file), file, MappingProxyType(document.marks))


def shipped() -> dict[str, Path]:
    """The wirings that come with the package, by name."""
    for directory in _DIRECTORIES:
        if directory.is_dir():
            return {path.stem: path for path in sorted(directory.glob("*.yaml"), key=lambda p: p.stem)}
    return {}


def json_schema() -> dict[str, Any]:
    """The JSON schema of wiring files, with every name they may use, for editors that complete and check."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    found = Wiring.model_json_schema(by_alias=True)
    either = {"oneOf": [{"required": [key]} for key in ("pathways", "auto")]}
    found["required"] = [key for key in found["required"] if key != "pathways"]
    return {**dialect, **found, **either, "title": "rec-LRA wiring"}


def _kind(data: Any) -> type[Wiring]:
    """The schema that a file is to fit: with pathways, or with the request to choose them."""
    return AutoWiring if "auto" in data and not data.get("pathways") else Wiring


def _is_path(text: str) -> bool:
    separated = os.sep in text or (os.altsep or os.sep) in text
    return text.endswith((".yaml", ".yml")) or separated or os.path.isfile(text)


def _shipped_path(name: str) -> Path:
    known = shipped()
    if name in known:
        return known[name]
    fix = "; ".join(filter(None, (nearest(name, list(known)), "the path of a file ends in .yaml")))
    raise WiringError(Fault("W004", f"there is no shipped wiring {clip(name)}", fix=fix))


def _validated(document: Document, file: str) -> Wiring:
    """The wiring of a document, if neither its text nor its data has a fault."""
    faults, wiring = list(document.faults), None
    if document.readable and () not in document.broken:
        early = _unusable(document, file)
        faults += early
        try:
            wiring = None if early else _kind(document.data).model_validate(document.data)
        except ValidationError as error:
            details = error.errors(include_url=False)
            meant = {(*e["loc"][:-1], nearest_key(e["loc"])) for e in details if e["type"] == "extra_forbidden"}
            # a misspelt key is one fault, not an unknown key and a missing one
            details = [e for e in details if e["type"] != "missing" or e["loc"] not in meant]
            faults += filter(None, (_translated(e, document, file) for e in details))
    if wiring is None or faults:
        raise WiringError(sorted(faults, key=lambda f: (f.where.line, f.where.column) if f.where else (0, 0)))
    return wiring


def _unusable(document: Document, file: str) -> list[Fault]:
    """Faults that leave nothing to check: no mapping, or a version with other rules."""
    data, where = document.data, document.marks.get((), Location(file))
    if data is None:
        return [Fault("W011", "the file is empty", where, _START)]
    if not isinstance(data, Mapping):
        return [Fault("W011", f"a wiring is a mapping, not {found(data)}", where, _START)]
    version = data.get("version", 1)
    if isinstance(version, int) and version != 1 and version is not False:
        where = document.marks.get(("version",), _unmarked(file, ("version",)))
        message = f"version {clip(version)} is not supported: this build reads version 1"
        return [Fault("W010", message, where, "use a build that reads it, or rewrite the file as version 1")]
    # `auto:` with nothing after it asks too; in data, as of a wiring that was dumped, None is what is not there
    if (data.get("auto") is not None or ("auto",) in document.keys) and data.get("pathways"):
        where = document.keys.get(("auto",), _unmarked(file, ("auto",)))
        message = "'pathways' says who hears whom, and 'auto' leaves it to the compiler"
        return [Fault("W045", message, where, "keep one of the two")]
    return []


def _unmarked(file: str, path: Sequence[str | int]) -> Location:
    dotted = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
    return Location(f"{file}: {dotted}" if dotted else file)


def _translated(error: ErrorDetails, document: Document, file: str) -> Fault | None:
    """The fault for one validation error; None where a fault of the text is its cause."""
    loc, missing = error["loc"], error["type"] == "missing"
    path, on_key = _locate(document.data, loc)
    at = (*path, loc[-1]) if missing else path
    if any(at[:n] in document.broken for n in range(1, len(at) + 1)):
        return None
    if (*path, "<<") in document.broken or (not missing and any(b[:-1] == at for b in document.broken)):
        return None
    marks = document.keys if on_key or error["type"] == "extra_forbidden" else document.marks
    code, message, fix = explain(error, path)
    return Fault(code, message, marks.get(path) or _unmarked(file, path), fix)


def _locate(data: object, loc: Sequence[str | int]) -> tuple[KeyPath, bool]:
    """The path in the file for a path in the normalised data, and whether its key is meant."""
    path: KeyPath = ()
    node: Any = data
    for step in loc:
        if step == "[key]":
            return path, True
        inside = isinstance(node, Mapping) and step in node
        if inside or (isinstance(node, list | tuple) and isinstance(step, int) and step < len(node)):
            path, node = (*path, step), node[step]
        elif isinstance(node, Mapping) and len(node) == 1 and path and path[-1] in _SHORT:
            word, node = next(iter(node.items()))
            path = (*path, word)
            if step == "name":
                return path, True
            if isinstance(node, Mapping) and step in node:
                path, node = (*path, step), node[step]
        elif step != "names":
            break
    return path, False
