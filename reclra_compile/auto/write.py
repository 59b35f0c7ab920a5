"""The chosen wiring as a YAML file that a person can read, edit and compile."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from reclra_compile.ir import OUTPUT
from reclra_compile.spec.schema import NamedWiring
from reclra_compile.spec.select import RELATIVE

WIDTH = 110
_INDENT: dict[str, Any] = {"subsequent_indent": "  "}
_PLAIN = re.compile(r"[A-Za-z_][\w.-]*( [\w.-]+)*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
RESERVED = {"all", "rest", "last", OUTPUT, *RELATIVE}  #: words of selectors, which no region's name can stand for


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `pathways:`, with the lines of comment above it."""

    source: object
    to: object
    options: Mapping[str, object]
    comment: Sequence[str]


def yaml_text(about: Sequence[str], sections: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    """A wiring file: comment lines, the sections that are not empty, and the pathways after them."""
    lines = [f"# {line}" for text in about for line in textwrap.wrap(text, WIDTH)]
    lines.append("version: 1")
    late = ("overrides", "training")  # settings that one reads after the pathways
    early = {k: v for k, v in sections.items() if k not in late}
    for key, value in early.items():
        lines += section(key, value)
    lines.append("pathways:")
    for entry in entries:
        lines += [f"  # {line}" for text in entry.comment for line in textwrap.wrap(text, WIDTH - 4, **_INDENT)]
        pairs = {"from": entry.source, "to": entry.to, **entry.options}
        lines += _wrapped("  - ", flow(pairs), "     ")
    for key in late:
        if sections.get(key):
            lines += section(key, sections[key])
    return "\n".join(lines) + "\n"


def section(key: str, value: Any) -> list[str]:
    if value is None or value in ([], {}, ""):
        return []
    if isinstance(value, list):
        return [f"{key}:", *(line for v in value for line in _wrapped("  - ", flow(v), "     "))]
    one = f"{key}: {flow(value)}"
    return [one] if len(one) <= WIDTH else [f"{key}:", *_wrapped("  ", flow(value), "   ")]


def _wrapped(first: str, text: str, rest: str) -> list[str]:
    """Lines of flow style, broken after commas outside quotes."""
    parts = re.findall(r'(?:"(?:[^"\\]|\\.)*"|[^",])+,?', text)
    lines, line = [], first
    for part in parts:
        piece = part.lstrip() if line in (first, rest) else part
        if len(line) + len(piece) > WIDTH and line not in (first, rest):
            lines.append(line)
            line, piece = rest, part.lstrip()
        line += piece
    return [*lines, line]


def flow(value: Any) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(str(k))}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(v) for v in value) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = repr(int(value) if value.is_integer() and abs(value) < 1e9 else value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)


def plain(part: Any) -> Any:
    """What a part of a wiring says, as it would be written: only what was given, in the short forms."""
    if isinstance(part, NamedWiring):
        return part.reference
    if isinstance(part, BaseModel):
        fields = type(part).model_fields
        given = {f.alias or k: getattr(part, k) for k, f in fields.items() if k in part.model_fields_set}
        part = {k: v for k, v in given.items() if v is not None}
    if isinstance(part, Mapping):
        found = {k: plain(v) for k, v in part.items()}
        if set(found) == {"name"}:
            return found["name"]
        if set(found) == {"names"}:
            return found["names"][0] if len(found["names"]) == 1 else found["names"]
        return found
    if isinstance(part, list | tuple):
        return [plain(v) for v in part]
    return part


def sources(names: Sequence[str], numbers: Mapping[str, int]) -> object:
    """A selector of regions: by name, or by layer number where a name is also a word of selectors."""
    if any(n in RESERVED for n in names):
        return {"layers": [numbers[n] for n in names]}
    return names[0] if len(names) == 1 else list(names)
