"""What is wrong with a wiring file, in words: code, message and fix for each error of the schema."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic_core import ErrorDetails

from reclra_compile.errors import nearest
from reclra_compile.spec.schema import Override, PathwaySpec, Wiring, keys_of, part_at
from reclra_compile.spec.yaml_marks import KeyPath

_OWN = re.compile(r"W\d{3}")
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "number": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "Kernel": "the name of a kernel or {low_rank: 8}",
    "Init": "the name of an initial distribution or, with its scale, {normal: 0.001}",
    "Update": "the name of an update or, with its gamma, {kolen_pollack: 0.5}",
    "Granularity": "layer, block or {groups: 2}",
    "InnerWiring": "the name of a wiring, its file, or a mapping with 'pathways:'",
    "Selector": "a region's name, a list of names, or a selector such as {every: 3}",
    "PathwaySpec": "a mapping such as {from: output, to: all}",
    "Override": "a mapping such as {regions: fc1, target: {beta: 0.5}}",
}
_NEEDED = {
    "version": "version: 1",
    "pathways": "pathways: [{from: output, to: all}]",
    "from": "from: output",
    "to": "to: all",
    "regions": "regions: fc1",
    "target": "target: {beta: 0.5}",
}
_BOUNDS = {"greater_than": "greater than {gt}", "greater_than_equal": "at least {ge}"}
_BOUNDS |= {"finite_number": "finite"}


def explain(error: ErrorDetails, path: KeyPath) -> tuple[str, str, str]:
    """Code, message and fix."""
    kind, value, ctx = error["type"], error["input"], error.get("ctx", {})
    what = _subject(path)
    if kind == "missing":
        key = str(error["loc"][-1])
        return "W006", f"{_noun(path)} needs the key '{key}'", f"add '{_NEEDED.get(key, key + ': …')}'"
    if kind == "extra_forbidden":
        return "W003", f"unknown key {clip(path[-1])} in {_noun(path[:-1])}", _key_fix(path)
    if _OWN.fullmatch(kind):  # one of the schema's own errors
        return kind, str(ctx["message"]), str(ctx["fix"])
    if kind == "literal_error":
        return _explain_literal(value, str(ctx["expected"]), path)
    if kind == "too_short":
        return "W007", f"{what} is an empty list", "put at least one entry in it"
    if kind in _BOUNDS:
        bound = _BOUNDS[kind].format(**{k: f"{v:g}" for k, v in ctx.items()})
        return "W007", f"{what} must be {bound}, not {clip(value)}", ""
    return _explain_type(kind.split("_")[0], value, str(ctx.get("class_name", "")), path)


def _explain_literal(value: object, expected: str, path: KeyPath) -> tuple[str, str, str]:
    names = re.findall(r"'(.*?)'", expected)
    if path == ("version",):
        return "W010", f"the version must be the number 1, not {found(value)}", "write 'version: 1'"
    if not names:
        return "W007", f"{_subject(path)} must be {expected}, not {clip(value)}", ""
    return "W004", f"unknown {path[-1]} {clip(value)}", nearest(str(value), names)


def _explain_type(kind: str, value: object, name: str, path: KeyPath) -> tuple[str, str, str]:
    what = _subject(path)
    if kind == "float" and isinstance(value, int):
        return "W007", f"{what} is too large a number", ""
    if kind == "invalid":
        return "W005", f"a key must be text, not {found(value)}", ""
    expected = _EXPECTED.get(name or kind, "a mapping, that is 'key: value' lines below it")
    if value is None:
        needed = _NEEDED.get(str(path[-1])) if len(path) > 1 or path == ("pathways",) else None
        fix = f"write '{needed}'" if needed else "give it a value, or remove it"
        return "W005", f"{what} must be {expected}, but it is empty", fix
    quote = isinstance(value, int | float) and (kind == "string" or name == "Selector")
    fix = "put it in quotes, as in '0'" if quote else ""
    if kind == "list":
        fix = "write [a, b], or one line that begins with '- ' for each entry"
    return "W005", f"{what} must be {expected}, not {found(value)}", fix


def nearest_key(path: KeyPath) -> str:
    """The key that the unknown key at the end of `path` is closest to; empty where none is."""
    hint = nearest(str(path[-1]), keys_of(part_at(path[:-1])))
    return hint.split("'")[1] if hint.startswith("did you mean") else ""


def _key_fix(path: KeyPath) -> str:
    key, known = str(path[-1]), keys_of(part_at(path[:-1]))
    if nearest_key(path):
        return nearest(key, known)
    if key in keys_of(Wiring):
        return "it belongs at the top level of the file"
    parts = {section: part_at((section,)) for section in keys_of(Wiring) if section not in path}
    homes = [f"'{section}'" for section, part in parts.items() if part is not Wiring and key in keys_of(part)]
    return f"it belongs in {' or '.join(homes)}" if homes else nearest(key, known)


def _subject(path: KeyPath) -> str:
    if len(path) > 1 and isinstance(path[-1], int):
        return f"entry {path[-1] + 1} of '{path[-2]}'"
    return f"'{path[-1]}'" if path else "the wiring"


def _noun(path: KeyPath) -> str:
    return {PathwaySpec: "this pathway", Override: "this override"}.get(part_at(path), _subject(path))


def found(value: object) -> str:
    """What a value is, in a few words."""
    if isinstance(value, bool):
        return "true (yes and on are read as true)" if value else "false (no and off are read as false)"
    if isinstance(value, str):
        return f"the text {clip(value)}"
    if isinstance(value, int | float):
        return f"the number {clip(value)}"
    kinds = ((Mapping, "a mapping"), (list | tuple, "a list"), (type(None), "nothing"))
    return next((name for kind, name in kinds if isinstance(value, kind)), f"a {type(value).__name__}")


def clip(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more digits, or more levels, than Python prints
        return "that is too long to show"
    return text if len(text) <= 40 else text[:37] + "..."
