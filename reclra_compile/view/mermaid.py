"""A plan as a Mermaid flowchart, which Markdown pages on GitHub, GitLab and in notebooks draw."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from reclra_compile.ir import Plan
from reclra_compile.view.drawing import Box
from reclra_compile.view.label import clean
from reclra_compile.view.layout import layout
from reclra_compile.view.palette import LIGHT, wave_colours

SUFFIXES = (".mmd", ".mermaid")
MOST_LINES, MOST_TEXT = 500, 50_000  #: Mermaid's own limits, where a page has not raised maxEdges and maxTextSize
_LINE = re.compile(r"^ +n\d+ (?:-->|==>|-\.->)", re.MULTILINE)
_UNSAFE = re.compile(r"[^\w .,:/+()=×·…\n-]")


def too_large(text: str) -> bool:
    """True for a flowchart that Mermaid refuses to draw unless its page has raised the limits."""
    return len(text) > MOST_TEXT or len(_LINE.findall(text)) > MOST_LINES


@dataclass
class _Group:
    """A block: the places of its own regions, and the blocks in it, in the order in which they begin."""

    name: str
    parts: list[int | _Group] = field(default_factory=list)
    inside: dict[str, _Group] = field(default_factory=dict)


def to_mermaid(plan: Plan) -> str:
    """The plan's error graph as a flowchart: subgraphs are blocks, thick or dotted arrows error pathways by wave.

    Names stand in quoted labels alone, with every character that means something to Mermaid as its number; what
    arrows and classes refer to are numbers of our own.
    """
    drawing = layout(plan)
    colours = wave_colours(drawing.waves)
    index = {b.name: i for i, b in enumerate(drawing.boxes) if b.kind == "region"}
    lines = [
        "---",
        f"title: {_title(f'{plan.name} on {plan.model}')}",
        "---",
        f"flowchart {'LR' if drawing.across else 'BT'}",
    ]
    within = {r.name: r.within for r in plan.regions}
    root = _Group("")
    for i, b in enumerate(drawing.boxes):
        group = root
        for name in within.get(b.name, ()) if b.kind == "region" else ():
            if name not in group.inside:
                group.inside[name] = _Group(name)
                group.parts.append(group.inside[name])
            group = group.inside[name]
        group.parts.append(i)
    lines += _Writer(drawing.boxes).lines(root, 1)

    arrows = [f"  n{e.source} --> n{e.target}" for e in drawing.edges]
    by_wave: dict[int, list[int]] = {}
    for a in drawing.arcs:
        by_wave.setdefault(a.wave, []).append(len(arrows))
        line = "-.->" if a.tied else "==>"
        label = f"|{a.wave}|" if a.wave >= 0 else ""
        arrows.append(f"  n{index[a.source]} {line}{label} n{index[a.target]}")
    if drawing.seed is not None:
        by_wave.setdefault(0, []).append(len(arrows))
        arrows.append(f"  n{len(drawing.boxes) - 1} ==>|0| n{index[drawing.seed.target]}")
    lines += arrows
    if drawing.edges:
        lines.append(f"  linkStyle {_listed(range(len(drawing.edges)))} stroke:{LIGHT.forward},stroke-width:1px")
    for wave, places in sorted(by_wave.items()):
        colour = colours[wave] if wave >= 0 else LIGHT.rim
        lines.append(f"  linkStyle {_listed(places)} stroke:{colour},stroke-width:2px")
    # no fill and no colour of text: those of the page's theme, light or dark
    for wave in range(drawing.waves):
        boxes = [i for i, b in enumerate(drawing.boxes) if b.wave == wave]
        if boxes:
            lines.append(f"  classDef w{wave} stroke:{colours[wave]},stroke-width:2px")
            lines.append(f"  class {','.join(f'n{i}' for i in boxes)} w{wave}")
    frozen = [i for i, b in enumerate(drawing.boxes) if b.frozen]
    if frozen:
        lines.append("  classDef frozen stroke-dasharray:4 3")
        lines.append(f"  class {','.join(f'n{i}' for i in frozen)} frozen")
    return "\n".join(lines) + "\n"


class _Writer:
    """Writes boxes and the blocks around them; blocks are numbered as they come."""

    def __init__(self, boxes: tuple[Box, ...]) -> None:
        self.boxes, self.count = boxes, 0

    def lines(self, group: _Group, depth: int) -> list[str]:
        found, pad = [], "  " * depth
        for part in group.parts:
            if isinstance(part, int):
                found.append(f"{pad}{self.box(part)}")
                continue
            found.append(f"{pad}subgraph b{self.count} [{_quote(part.name)}]")
            self.count += 1
            found += [*self.lines(part, depth + 1), f"{pad}end"]
        return found

    def box(self, i: int) -> str:
        b = self.boxes[i]
        said = [b.name, *(t.text for t in b.texts[1:])] + [f"wave {b.wave}"] * (b.wave >= 0)
        left, right = ("[", "]") if b.kind == "region" else ("([", "])")
        return f"n{i}{left}{_quote(chr(10).join(said))}{right}"


def _title(text: str) -> str:
    """A YAML string, in which nothing is a directive or an entity of Mermaid either."""
    quoted = json.dumps(clean(text))
    for sign in "%#":
        quoted = quoted.replace(sign, f"\\u{ord(sign):04x}")
    return quoted


def _quote(text: str) -> str:
    """A Mermaid string: letters, digits and a few signs as they are, everything else by its number."""
    safe = _UNSAFE.sub(lambda m: f"#{ord(m[0])};", clean(text).replace("\r", " ") or " ")
    return '"' + safe.replace("\n", "<br>") + '"'


def _listed(places: range | list[int]) -> str:
    return ",".join(map(str, places))
