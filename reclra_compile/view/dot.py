"""A plan as Graphviz text: `dot` finds its own places, `neato -n` uses those of the drawing."""

from __future__ import annotations

from reclra_compile.ir import Plan
from reclra_compile.view.label import clean, number
from reclra_compile.view.layout import layout
from reclra_compile.view.palette import LIGHT, wave_colours


def to_dot(plan: Plan) -> str:
    """The plan's error graph in the DOT language, with the colours of the picture."""
    drawing = layout(plan)
    colours = wave_colours(drawing.waves)
    name_of = {b.name: i for i, b in enumerate(drawing.boxes) if b.kind == "region"}
    lines = [
        f"digraph {_quote(plan.name)} {{",
        f"  rankdir={'LR' if drawing.across else 'BT'};",
        '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif", fontsize=11];',
        f'  edge [color="{LIGHT.forward}", arrowsize=0.7];',
    ]
    for i, b in enumerate(drawing.boxes):
        # numbers identify boxes: a region may have the name of an input, and any characters
        colour = colours[b.wave] if b.wave >= 0 else LIGHT.rim
        place = f"{number(b.x + b.width / 2)},{number(drawing.height - b.y - b.height / 2)}"
        label = "\n".join([b.name, *(t.text for t in b.texts[1:])])
        dashed = ', style="rounded,filled,dashed"' if b.frozen else ""
        lines.append(
            f'  n{i} [label={_quote(label)}, color="{colour}"{dashed}, pos="{place}", '
            f"tooltip={_quote(b.hover)}];"
        )
    lines += [f"  n{e.source} -> n{e.target};" for e in drawing.edges]
    for a in drawing.arcs:
        colour = colours[a.wave] if a.wave >= 0 else LIGHT.rim
        dashed = ", style=dashed" if a.tied else ""
        lines.append(
            f'  n{name_of[a.source]} -> n{name_of[a.target]} [id={_quote(a.name)}, color="{colour}"{dashed}, '
            f"penwidth=1.6, constraint=false, tooltip={_quote(a.hover)}];"
        )
    return "\n".join([*lines, "}"]) + "\n"


def _quote(text: str) -> str:
    """A DOT string; backslashes are doubled so that none starts one of its escapes."""
    text = clean(text).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("\r", " ").replace("\n", "\\n") + '"'
