"""The text of a starter wiring: a heading with the model's regions, then every section with comments."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reclra_compile.auto.write import WIDTH, flow, section
from reclra_compile.ir import Plan, Region
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.starter.comments import EXAMPLES, above

if TYPE_CHECKING:
    from reclra_compile.starter.make import Starter

MOST = 80  #: regions that are listed one by one


def text_of(made: Starter, heading: Sequence[str], commands: Sequence[str]) -> str:
    """The wiring file: `heading` are paragraphs, `commands` lines that the reader can run next."""
    plan, sections = made.plan, made.sections
    lines = [*_comment(heading), "#", "# Next:", *(f"#   {c}" for c in commands), "#", *_regions(plan)]
    names = {r.name for r in plan.regions}
    if any(r.layers for r in plan.regions) and not names.issuperset(made.blocks):
        said = f"With regions: {{granularity: block}} they would be {', '.join(map(flow, made.blocks[:MOST]))}"
        lines += _comment([said + (", …" if len(made.blocks) > MOST else ".")])
    lines.append("")
    lines.append("version: 1")
    for key in EXAMPLES:
        lines += ["", *_comment(above(key))]
        lines += _pathways(sections[key]) if key == "pathways" else _value(key, sections.get(key), plan)
    return "\n".join(lines) + "\n"


def _comment(texts: Iterable[str]) -> list[str]:
    """Lines of comment; a text that begins with blanks is a list's entry, whose next lines stand below its words."""
    lines: list[str] = []
    for text in texts:
        listed = re.match(r" +(?:\S+ {2,})?", text)
        more = " " * (len(listed[0]) if listed else 0)
        lines += [f"# {t}" for t in textwrap.wrap(text, WIDTH - 2, subsequent_indent=more, break_on_hyphens=False)]
    return lines


def _value(key: str, value: Any, plan: Plan) -> list[str]:
    """A section as it is used, or, commented out, as it could be."""
    if value not in (None, {}, [], ""):
        return section(key, value)
    first = plan.regions[0].name
    examples = {
        "overrides": f"[{flow({'regions': first, 'target': {'beta': 0.02}})}]",
        "frozen": flow(first),
        "placement": flow({first: 0}),
    }
    return [f"# {key}: {examples.get(key) or EXAMPLES[key]}"]


def _pathways(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["pathways:", *(f"  - {flow(e)}" for e in entries)]


def _regions(plan: Plan) -> list[str]:
    """The regions by the names that selectors take, each with its layer number, shape and parameters."""
    graph = RegionGraph(plan.regions, plan.output)
    numbers = {name: k for k, name in enumerate(graph.layers, 1)}
    rows = [("layer", "name", "what it is", "output", "parameters")]
    for r in plan.regions[:MOST]:
        number = str(numbers.get(r.name, "-"))
        rows.append((number, flow(r.name), _what(r), "×".join(map(str, r.shape)) or "1", f"{r.parameter_count:,}"))
    wide = [max(len(row[k]) for row in rows) for k in range(5)]
    lines = [
        f"#   {n:>{wide[0]}}  {name:<{wide[1]}}  {what:<{wide[2]}}  {shape:>{wide[3]}}  {count:>{wide[4]}}"
        for n, name, what, shape, count in rows
    ]
    if len(plan.regions) > MOST:
        lines.append(f"#   and {len(plan.regions) - MOST} more: reclra-compile regions MODEL --wiring THIS_FILE")
    said = f"The model's regions. The output region is {flow(graph.output)}, whose error comes from the loss."
    return [*_comment([said]), *lines]


def _what(r: Region) -> str:
    """What a region does, and in one of several layers, how many."""
    if r.layers and r.layers != (r.name,):
        return f"{len(r.layers)} layers, {r.layers[0]} to {r.layers[-1]}"
    return f"{r.op}, {r.phi}" if r.phi != "identity" else r.op
