"""Curves as an SVG picture: panels of lines with axes, ticks, bands and one legend. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reclra_compile.view.label import number, width, xml
from reclra_compile.view.palette import LIGHT, wave_colours
from reclra_compile.view.svg import FONTS

PANEL_W, PANEL_H = 400.0, 250.0
LEFT, RIGHT, BETWEEN, BELOW, BOTTOM = 66.0, 22.0, 74.0, 84.0, 50.0
LOG_FROM = 4.0  #: values that span more than this factor get a logarithmic axis
DASHES = ("", "7 4")


@dataclass(frozen=True)
class Curve:
    """One line: its points, and the band of values around them ((), where there is none)."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Panel:
    """A title, the names of the axes, and curves; those of one name look alike in all panels."""

    title: str
    x_name: str
    y_name: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Axis:
    """Where values stand between two ends, linear or logarithmic, and where its ticks are."""

    low: float
    high: float
    logarithmic: bool

    def at(self, value: float) -> float:
        """The place of a value, 0 to 1 between the ends, and no further."""
        if self.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Round values within the ends: of a logarithmic axis 1, 2, 3, 5 and 7 of each decade."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = [m * 10.0**d for d in decades for m in (1, 2, 3, 5, 7)]
        else:
            step = _round_step((self.high - self.low) / 5)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            every = [k * step for k in range(first, last + 1)]
        return [t for t in every if self.low * (1 - 1e-9) <= t <= self.high * (1 + 1e-9)]


def value_axis(values: Sequence[float]) -> Axis:
    """An axis that shows all values, logarithmic where they span much and are above zero."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low > 0 and high / low > LOG_FROM:
        return Axis(low / 1.12, high * 1.12, True)
    pad = 0.06 * (high - low) or max(abs(high) * 0.1, 0.5)
    return Axis(max(low - pad, 0.0) if low >= 0 else low - pad, high + pad, False)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))


def size_of(panels: Sequence[Panel], columns: int) -> tuple[float, float]:
    """Width and height of the picture, in pixels."""
    rows = math.ceil(len(panels) / columns)
    wide = LEFT + columns * PANEL_W + (columns - 1) * BETWEEN + RIGHT
    return wide, _top(panels, wide) + rows * PANEL_H + (rows - 1) * BELOW + BOTTOM


def curves_svg(title: str, panels: Sequence[Panel], columns: int = 2) -> str:
    """The picture, on a light background. Panels of one row share their vertical axis."""
    wide, high = size_of(panels, columns)
    names = list(dict.fromkeys(c.name for p in panels for c in p.curves))
    colours = wave_colours(len(names) + 1)[1:]
    look = {name: (colours[k], DASHES[k % len(DASHES)]) for k, name in enumerate(names)}
    out = [_legend(look, wide)]
    for k, panel in enumerate(panels):
        row, column = divmod(k, columns)
        beside = panels[row * columns : (row + 1) * columns]
        values = [v for p in beside for c in p.curves for v in (*c.y, *c.low, *c.high)]
        x, y = LEFT + column * (PANEL_W + BETWEEN), _top(panels, wide) + row * (PANEL_H + BELOW)
        out.append(_panel(panel, value_axis(values), look, x, y))
    w, h = number(wide), number(high)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        f'font-family="{FONTS}" role="img" aria-label="{xml(title)}">\n<title>{xml(title)}</title>\n'
        f'<rect width="{w}" height="{h}" fill="{LIGHT.ground}"/>\n'
        f"{_text(LEFT, 30, title, 16, bold=True)}{''.join(out)}</svg>\n"
    )


def _panel(panel: Panel, axis: Axis, look: dict[str, tuple[str, str]], left: float, top: float) -> str:
    most = max((x for c in panel.curves for x in c.x), default=1.0)
    across = Axis(0.0, most or 1.0, False)
    bottom, right = top + PANEL_H, left + PANEL_W
    out = [_text(left, top - 12, panel.title, 13, bold=True)]
    for tick in axis.ticks():
        y = bottom - axis.at(tick) * PANEL_H
        out.append(_line(left, y, right, y, LIGHT.rim, 0.25))
        out.append(_text(left - 8, y + 4, f"{tick:g}", 11, "end", faint=True))
    for tick in across.ticks():
        x = left + across.at(tick) * PANEL_W
        out.append(_line(x, bottom, x, bottom + 4, LIGHT.rim, 1))
        out.append(_text(x, bottom + 18, f"{tick:g}", 11, "middle", faint=True))
    out.append(_line(left, top, left, bottom, LIGHT.rim, 1) + _line(left, bottom, right, bottom, LIGHT.rim, 1))
    out.append(_text(left + PANEL_W / 2, bottom + 36, panel.x_name, 12, "middle"))
    middle = number(left - 44), number(top + PANEL_H / 2)
    said = xml(panel.y_name + (" (logarithmic)" if axis.logarithmic else ""))
    out.append(
        f'<text transform="translate({middle[0]} {middle[1]}) rotate(-90)" font-size="12" text-anchor="middle" '
        f'fill="{LIGHT.ink}">{said}</text>\n'
    )
    for curve in panel.curves:
        colour, dash = look[curve.name]

        def place(xs: Sequence[float], ys: Sequence[float]) -> list[str]:
            ok = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
            return [
                f"{number(left + across.at(x) * PANEL_W)},{number(bottom - axis.at(y) * PANEL_H)}" for x, y in ok
            ]

        if curve.low and curve.high:
            around = place(curve.x, curve.high) + place(curve.x, curve.low)[::-1]
            out.append(f'<polygon points="{" ".join(around)}" fill="{colour}" fill-opacity="0.15"/>\n')
        points = place(curve.x, curve.y)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        out.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-linejoin="round"{dashes}><title>{xml(curve.name)}</title></polyline>\n'
        )
    return "".join(out)


def _places(names: Sequence[str], wide: float) -> list[tuple[float, float]]:
    """Where each name of the legend stands; names that find no room begin another line."""
    x, y = LEFT, 54.0
    places: list[tuple[float, float]] = []
    for name in names:
        room = 34 + width(name, 12) + 22
        if places and x + room > wide - RIGHT:
            x, y = LEFT, y + 20
        places.append((x, y))
        x += room
    return places


def _top(panels: Sequence[Panel], wide: float) -> float:
    names = list(dict.fromkeys(c.name for p in panels for c in p.curves))
    return max((y for _, y in _places(names, wide)), default=54.0) + 44


def _legend(look: dict[str, tuple[str, str]], wide: float) -> str:
    out = []
    for (name, (colour, dash)), (x, y) in zip(look.items(), _places(list(look), wide), strict=True):
        out.append(_line(x, y, x + 28, y, colour, 1, 2.5, dash) + _text(x + 34, y + 4, name, 12))
    return "".join(out)


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, opacity: float, stroke: float = 1, dash: str = ""
) -> str:
    ends = " ".join(f'{n}="{number(v)}"' for n, v in zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True))
    seen = f' stroke-opacity="{opacity}"' if opacity < 1 else ""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line {ends} stroke="{colour}" stroke-width="{stroke:g}"{seen}{dashes}/>\n'


def _text(
    x: float, y: float, text: str, size: float, anchor: str = "start", bold: bool = False, faint: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    ends = f' text-anchor="{anchor}"' if anchor != "start" else ""
    fill = LIGHT.faint if faint else LIGHT.ink
    at = f'x="{number(x)}" y="{number(y)}"'
    return f'<text {at} font-size="{size:g}"{weight}{ends} fill="{fill}">{xml(text)}</text>\n'


