"""The page of every key of a wiring file, from the schema that `reclra-compile schema` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reclra_compile.rules.catalogue import AUTO_UPDATE, GRANULARITIES, INITS, KERNELS, TARGETS, UPDATES
from reclra_compile.spec.load import json_schema
from reclra_compile.spec.parts import ACTIVATIONS

INTRO = """# Every key of a wiring file

Generated from the schema that checks wiring files, which `reclra-compile schema` prints for editors. What the keys are
for, with examples, is in [Wiring files](../wiring.md). Keys in bold are required.
"""
#: the parts in the order of the page, and where in a file each one stands
PARTS = {
    "": ("The file", ""),
    "RegionsSpec": ("regions", "`regions:`"),
    "Selector": (
        "Selectors",
        "every place where regions are named: `to:`, `from:`, `frozen:`, `recompute:`, overrides",
    ),
    "PathwaySpec": ("pathways", "each entry of `pathways:`"),
    "Synapses": ("synapses", "`synapses:`"),
    "TargetSpec": ("target", "`target:`, and `target:` of overrides"),
    "SettleSpec": ("settle", "`settle:` of `target:`"),
    "Override": ("overrides", "each entry of `overrides:`"),
    "InnerWiring": ("inside", "`inside:`, where it is not the name or file of a wiring"),
    "AutoSpec": ("auto", "`auto:`"),
    "MemorySpec": ("memory", "`memory:`"),
    "ScheduleSpec": ("schedule", "`schedule:`"),
    "TrainingSection": ("training", "`training:`"),
    "TrainingSpec": ("training of an activation", "each value of `phi:` in `training:`"),
}
WORDS = {
    "Granularities": GRANULARITIES,
    "Kernels": KERNELS,
    "Initial values": INITS,
    "Updates": {"auto": AUTO_UPDATE, **UPDATES.known},
    "Target rules": TARGETS.known,
}
#: what stands for a long list of words, by the words
LISTS = {
    frozenset(KERNELS): "a [kernel](#kernels)",
    frozenset(INITS): "a [distribution](#initial-values)",
    frozenset({"auto", *UPDATES.known}): "an [update](#updates)",
    frozenset(TARGETS.known): "a [target rule](#target-rules)",
    frozenset(ACTIVATIONS): "an [activation](#activations)",
}


def page() -> str:
    """The Markdown of the page; every part of the schema has a section, and every key a row."""
    schema = json_schema()
    parts = {"": schema, **schema["$defs"]}
    missing = sorted(set(parts) - set(PARTS))
    if missing:
        raise ValueError(f"docs/gen/gen_schema.py: PARTS has no place for {', '.join(missing)}")
    sections = [INTRO]
    for name, (title, where) in PARTS.items():
        rows = "\n".join(_rows(parts[name]))
        about = f"In {where}. " * bool(where) + parts[name].get("description", "")
        sections.append(f"## {title}\n\n{about}\n\n{HEAD}\n{rows}\n")
    for title, entries in WORDS.items():
        rows = "\n".join(f"| `{name}` | {_cell(entry.about)} |" for name, entry in entries.items())
        sections.append(f"## {title}\n\n| word | meaning |\n|---|---|\n{rows}\n")
    sections.append("## Activations\n\n" + ", ".join(f"`{name}`" for name in ACTIVATIONS) + ".\n")
    return "\n".join(sections)


HEAD = "| key | value | default | meaning |\n|---|---|---|---|"


def _rows(part: Mapping[str, Any]) -> Iterator[str]:
    for key, value in part["properties"].items():
        required = key in part.get("required", ())
        meaning, _, stated = value.get("description", "").partition("; default")
        default = "" if required else stated.strip(" :") or _default(value)
        if not meaning or meaning.startswith("default "):
            meaning, default = "", meaning.removeprefix("default ") or default
        name = f"**`{key}`**" if required else f"`{key}`"
        yield f"| {name} | {_cell(_kind(value))} | {_cell(default)} | {_cell(meaning)} |"


def _kind(value: Mapping[str, Any]) -> str:
    """What may be written: words, numbers with their bounds, other parts."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        title = PARTS[name][0]
        return f"[{'selector' if name == 'Selector' else title}](#{title.lower().replace(' ', '-')})"
    if "anyOf" in value:
        options = [v for v in value["anyOf"] if v.get("type") != "null" and "name" not in v.get("properties", {})]
        return _listed(options) or " or ".join(dict.fromkeys(map(_kind, options)))
    if "enum" in value or "const" in value:
        words = value.get("enum", [value.get("const")])
        return LISTS.get(frozenset(words)) or ", ".join(f"`{w}`" for w in words)
    kind = value.get("type")
    if kind == "array":
        inner = _kind(value["items"])
        return f"list, each {inner}" if " or " in inner else f"list of {inner}"
    if kind == "object":
        return _mapping(value)
    if isinstance(kind, list):
        return "bytes, or a size such as `256MiB`"
    plain = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`"}[kind]
    return plain + _bounds(value)


def _listed(options: list[Mapping[str, Any]]) -> str:
    """Words with numbers, as `kernel: dense` and `kernel: {low_rank: 8}`."""
    plain = {w for v in options if "enum" in v for w in v["enum"]}
    keyed = {k for v in options if v.get("maxProperties") == 1 for k in v["properties"]}
    name = LISTS.get(frozenset(plain | keyed)) if keyed else None
    if name is None:
        return ""
    number = "" if keyed == plain | keyed else " (" + ", ".join(f"`{k}`" for k in sorted(keyed)) + ")"
    return f"{name}, or `{{word: number}}`{number}"


def _mapping(value: Mapping[str, Any]) -> str:
    if value.get("maxProperties") == 1:
        return ", ".join(f"`{{{k}: number}}`" for k in value["properties"])
    inner = _kind(value["additionalProperties"]) if isinstance(value.get("additionalProperties"), dict) else "mapping"
    return f"name → {inner}"


def _bounds(value: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {value[key]:g}" for key, sign in signs.items() if key in value)


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if isinstance(default, dict) and "name" in default:
        return f"`{default['name']}`"
    if default is None or isinstance(default, dict | list) or default == "":
        return ""
    return f"{default:,}" if isinstance(default, int) else f"`{default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").strip()
