"""A drawing as a standalone SVG file."""

from __future__ import annotations

import math
from itertools import pairwise

from reclra_compile.view.drawing import Arc, Box, Drawing, Edge, Key, Point, Text
from reclra_compile.view.label import number, xml
from reclra_compile.view.palette import DARK, LIGHT, Theme, wave_colours

#: generic families alone do not name a font everywhere, so that common ones come first
FONTS = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', 'Noto Sans', sans-serif"
ROUND = 16.0
HEAD = 9.0


def to_svg(drawing: Drawing, theme: str = "auto") -> str:
    """The drawing as a standalone SVG file: light, dark, or (auto) as the viewer prefers."""
    if theme not in ("auto", "light", "dark"):
        raise ValueError(f"theme must be auto, light or dark, not {theme!r}")
    pen = _Pen(drawing, DARK if theme == "dark" else LIGHT, theme == "dark")
    w, h = number(math.ceil(drawing.width)), number(math.ceil(drawing.height))
    style = f"<style>@media (prefers-color-scheme:dark){{{style_rules(drawing.waves, True)}}}</style>\n"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        f'font-family="{FONTS}" role="img" aria-label="{xml(_about(drawing))}">\n'
        f"<title>{xml(drawing.name)}</title>\n{style if theme == 'auto' else ''}"
        f'<rect class="ground" width="{w}" height="{h}" fill="{pen.theme.ground}"/>\n'
        f"{pen.title()}{pen.graph()}</svg>\n"
    )


def style_rules(waves: int, dark: bool) -> str:
    """CSS that gives every part of the graph its colour on a light or a dark background."""
    t = DARK if dark else LIGHT
    rules = [
        f".ground{{fill:{t.ground}}}.ink{{fill:{t.ink}}}.faint{{fill:{t.faint}}}.onwave{{fill:{t.ground}}}",
        f".edge path,.key .forward{{stroke:{t.forward}}}.edge polygon{{fill:{t.forward}}}",
        f".body{{fill:{t.box};stroke:{t.rim}}}.region .body{{stroke:none}}"
        f".none .rim,.none .line{{stroke:{t.rim}}}.none .fill{{fill:{t.rim}}}"
        f".key .tied,.key .frozen{{stroke:{t.faint}}}",
    ]
    for k, colour in enumerate(wave_colours(waves, dark)):
        rules.append(
            f".w{k} .line,.w{k} .rim{{stroke:{colour}}}"
            f".w{k} .fill{{fill:{colour}}}.w{k} .tint{{fill:{colour};fill-opacity:{t.tint}}}"
        )
    return "".join(rules)


def _about(d: Drawing) -> str:
    regions = sum(b.kind == "region" for b in d.boxes)
    return f"{d.name}: error graph with {regions} regions and {len(d.arcs)} error pathways in {d.waves} waves"


class _Pen:
    """Writes the elements of a drawing in the colours of a theme."""

    def __init__(self, drawing: Drawing, theme: Theme, dark: bool) -> None:
        self.drawing, self.theme = drawing, theme
        self.colours = wave_colours(drawing.waves, dark)

    def colour(self, wave: int) -> str:
        return self.colours[wave] if 0 <= wave < len(self.colours) else self.theme.rim

    def title(self) -> str:
        d = self.drawing
        return "".join(self.text(t) for t in d.heading) + "".join(self.key(k) for k in d.legend)

    def graph(self) -> str:
        d = self.drawing
        parts = [self.edge(e) for e in d.edges]
        if d.seed is not None:
            parts.append(self.arc(d.seed, -1))
        # long pathways first: short ones, near the boxes, stay on top and easy to point at
        order = sorted(range(len(d.arcs)), key=lambda i: -_length(d.arcs[i].points))
        parts += [self.arc(d.arcs[i], i) for i in order]
        parts += [self.box(b) for b in d.boxes]
        return "".join(parts)

    def text(self, t: Text) -> str:
        fill = {"ink": self.theme.ink, "onwave": self.theme.ground}.get(t.tone, self.theme.faint)
        weight = ' font-weight="600"' if t.bold else ""
        anchor = f' text-anchor="{t.anchor}"' if t.anchor != "start" else ""
        return (
            f'<text class="{t.tone}" x="{number(t.x)}" y="{number(t.y)}" font-size="{number(t.size)}"'
            f'{weight}{anchor} fill="{fill}">{xml(t.text)}</text>\n'
        )

    def edge(self, e: Edge) -> str:
        c = self.theme.forward
        path, head = _line(e.points, e.swing, self.drawing.across, 7.5)
        return (
            f'<g class="edge"><path d="{path}" fill="none" stroke="{c}" stroke-width="1.5"/>'
            f'<polygon points="{head}" fill="{c}"/></g>\n'
        )

    def arc(self, a: Arc, index: int) -> str:
        c = self.colour(a.wave)
        path, head = _line(a.points, False, self.drawing.across, HEAD)
        dash = ' stroke-dasharray="5 3.5"' if a.tied else ""
        names = f' data-pathway="{xml(a.name)}"' if index >= 0 else ""
        wave = f"w{a.wave}" if a.wave >= 0 else "none"
        return (
            f'<g class="{"arc" if index >= 0 else "seed"} {wave}"{names}><title>{xml(a.hover)}</title>'
            f'<path class="line" d="{path}" fill="none" stroke="{c}" stroke-width="2"{dash}/>'
            f'<polygon class="fill" points="{head}" fill="{c}"/></g>\n'
        )

    def box(self, b: Box) -> str:
        c = self.colour(b.wave)
        place = f'x="{number(b.x)}" y="{number(b.y)}" width="{number(b.width)}" height="{number(b.height)}"'
        if b.kind != "region":
            place += f' rx="{number(min(b.height / 2, 20))}"'
            body = f'<rect class="body" {place} fill="{self.theme.box}" stroke="{self.theme.rim}"/>'
            return f'<g class="{b.kind}"><title>{xml(b.hover)}</title>{body}{self.texts(b)}</g>\n'
        place += ' rx="7"'
        wave = f"w{b.wave}" if b.wave >= 0 else "none"
        names = f'data-region="{xml(b.name)}"'
        dash = ' stroke-dasharray="4 3"' if b.frozen else ""
        tint = f' fill="{c}" fill-opacity="{self.theme.tint}"' if b.wave >= 0 else ' fill="none"'
        badge = ""
        if b.badge is not None:
            r = 6.5 if len(b.badge.text) < 3 else 8.5
            badge = (
                f'<circle class="fill" cx="{number(b.badge.x)}" cy="{number(b.badge.y)}" r="{r}" fill="{c}"/>'
            )
            t = b.badge
            badge += self.text(Text(t.x, t.y + 3, t.text, t.size, "middle", True, "onwave"))
        return (
            f'<g class="region {wave}" {names}><title>{xml(b.hover)}</title>'
            f'<rect class="body" {place} fill="{self.theme.box}"/>'
            f'<rect class="tint rim" {place}{tint} stroke="{c}" stroke-width="1.6"{dash}/>'
            f"{self.texts(b)}{badge}</g>\n"
        )

    def texts(self, b: Box) -> str:
        return "".join(self.text(t) for t in b.texts)

    def key(self, k: Key) -> str:
        x, y, t = k.x, k.y, self.theme
        right = number(x + 24)
        if k.kind == "scale":
            steps = 24
            sample = "".join(
                f'<g class="w{w}"><rect class="fill" x="{number(x + 4 * i)}" y="{number(y - 4)}" '
                f'width="4.2" height="8" fill="{self.colour(w)}"/></g>'
                for i in range(steps)
                for w in [1 + round(i * (self.drawing.waves - 2) / (steps - 1))]
            )
        elif k.kind == "frozen":
            sample = (
                f'<rect class="frozen" x="{number(x + 2)}" y="{number(y - 6)}" width="20" height="12" '
                f'rx="3" fill="none" stroke="{t.faint}" stroke-width="1.4" stroke-dasharray="4 3"/>'
            )
        else:
            c = {"arc": self.colour(k.wave), "forward": t.forward}.get(k.kind, t.faint)
            dash = ' stroke-dasharray="5 3.5"' if k.kind == "tied" else ""
            name = "line" if k.kind == "arc" else k.kind
            sample = (
                f'<path class="{name}" d="M{number(x)} {number(y)}H{right}" fill="none" stroke="{c}" '
                f'stroke-width="{3 if k.kind == "arc" else 2}"{dash}/>'
            )
        wave = f"w{k.wave}" if k.kind == "arc" else ""
        return f'<g class="key {wave}">{sample}{self.text(k.text)}</g>\n'


def _length(points: tuple[Point, ...]) -> float:
    return sum(math.dist(a, b) for a, b in pairwise(points))


def _line(points: tuple[Point, ...], swing: bool, across: bool, head: float) -> tuple[str, str]:
    """The path of a line with rounded corners, and its arrow head."""
    *_, before, end = points
    if swing:
        before = (end[0] - 1, end[1]) if across else (end[0], end[1] + 1)
    size = math.dist(before, end) or 1.0
    ux, uy = (end[0] - before[0]) / size, (end[1] - before[1]) / size
    neck = (end[0] - ux * head, end[1] - uy * head)
    wing = head * 0.42
    corners = [end, (neck[0] - uy * wing, neck[1] + ux * wing), (neck[0] + uy * wing, neck[1] - ux * wing)]
    tip = " ".join(f"{number(x)},{number(y)}" for x, y in corners)
    line = [*points[:-1], (neck[0] + ux, neck[1] + uy)]
    start = f"M{_pair(line[0])}"
    if swing:
        (x, y), (x2, y2) = line
        mx, my = (x + x2) / 2, (y + y2) / 2
        bend = (mx, y, mx, y2) if across else (x, my, x2, my)
        return f"{start}C{' '.join(number(v) for v in (*bend, x2, y2))}", tip
    parts = [start]
    for a, corner, b in zip(line, line[1:], line[2:], strict=False):
        inward, outward = math.dist(a, corner), math.dist(corner, b)
        # half of each side is left to the next corner, except at the ends of the line
        r = min(ROUND, inward / (1 if a is line[0] else 2), outward / (1 if b is line[-1] else 2))
        p = _toward(corner, a, r)
        q = _toward(corner, b, r)
        parts.append(f"L{_pair(p)}Q{_pair(corner)} {_pair(q)}")
    parts.append(f"L{_pair(line[-1])}")
    return "".join(parts), tip


def _pair(p: Point) -> str:
    return f"{number(p[0])} {number(p[1])}"


def _toward(corner: Point, other: Point, r: float) -> Point:
    d = math.dist(corner, other) or 1.0
    return corner[0] + (other[0] - corner[0]) * r / d, corner[1] + (other[1] - corner[1]) * r / d
