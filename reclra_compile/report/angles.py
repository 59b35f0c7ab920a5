"""The angle between a wiring's update and backprop's, a row a region: before training and after. Torch-free."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from reclra_compile.report.summary import Angle, Group
from reclra_compile.view.label import number, shorten, width, xml

WIDE, TOP, BOTTOM, RIGHT, NAMES = 860.0, 22.0, 36.0, 20.0, 190.0
#: a region's row, and less where there are many regions
ROW, LEAST, ALL = 26.0, 5.0, 900.0
MOST = 180.0


def angles_svg(groups: Sequence[Group]) -> str:
    """A dot for each wiring and region after training, a ring before; a line goes over the seeds. 90° is no alignment.
    """
    shown = [(k, g) for k, g in enumerate(groups) if g.angles]
    names = list(dict.fromkeys(a.region for _, g in shown for a in g.angles))
    tall = max(min(ROW + 10.0 * (len(shown) - 1), ALL / len(names)), LEAST)
    label = min(max(width(n, 11) for n in names) + 12, NAMES)
    bottom = TOP + len(names) * tall

    def at(degrees: float) -> float:
        return label + degrees / MOST * (WIDE - RIGHT - label)

    out = []
    for degrees in range(0, 181, 30):
        kind = "ref" if degrees == 90 else "grid"
        out.append(f'<path class="{kind}" d="M{number(at(degrees))} {number(TOP)}V{number(bottom)}"/>')
        out.append(_text(at(degrees), bottom + 16, f"{degrees}°", "middle"))
    out.append(_text(at(0), TOP - 8, "as backprop", "start") + _text(at(90), TOP - 8, "no relation", "middle"))
    out.append(_text(at(180), TOP - 8, "against it", "end"))
    every = max(1, math.ceil(12.0 / tall))
    for i, name in enumerate(names):
        y = TOP + (i + 0.5) * tall
        if i % every == 0:
            out.append(_text(label - 7, y + 4, shorten(name, label - 10, 11), "end"))
        if i and tall >= ROW:
            line = number(y - tall / 2)
            out.append(f'<path class="row" d="M{number(label)} {line}H{number(WIDE - RIGHT)}"/>')
    for j, (k, group) in enumerate(shown):
        rows = []
        for angle in group.angles:
            y = TOP + (names.index(angle.region) + (j + 1) / (len(shown) + 1)) * tall
            rows.append(_marks(group.label, angle, y, [at(v) for v in angle.start], [at(v) for v in angle.end]))
        out.append(f'<g class="curve c{k}" data-wiring="{k}">{"".join(rows)}</g>\n')
    return (
        f'<svg class="angles" viewBox="0 0 {number(WIDE)} {number(bottom + BOTTOM - 12)}" role="img" '
        f'aria-label="angle between update and backprop\'s gradient by region">\n{"".join(out)}</svg>'
    )


def _marks(wiring: str, angle: Angle, y: float, start: Sequence[float], end: Sequence[float]) -> str:
    out = []
    if start:
        x, degrees = statistics.fmean(start), statistics.fmean(angle.start)
        said = xml(f"{wiring}, {angle.region}: {degrees:.1f}° before training")
        out.append(f'<circle class="ring" cx="{number(x)}" cy="{number(y)}" r="4"><title>{said}</title></circle>')
    if end:
        if len(end) > 1:
            out.append(f'<path class="range" d="M{number(min(end))} {number(y)}H{number(max(end))}"/>')
        x, degrees = statistics.fmean(end), statistics.fmean(angle.end)
        said = xml(f"{wiring}, {angle.region}: {degrees:.1f}° after training")
        out.append(f'<circle class="dot" cx="{number(x)}" cy="{number(y)}" r="4.4"><title>{said}</title></circle>')
    return "".join(out)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}">{xml(text)}</text>'
