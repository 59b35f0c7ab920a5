"""A sweep as a picture: six panels of lines, light and dark, and the points as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reclra_compile.files import write_text
from reclra_compile.placement.faults import size
from reclra_compile.simulate.findings import AXES, findings, rate
from reclra_compile.simulate.page import page
from reclra_compile.simulate.sweep import NAMES, OURS, BreakEven, Point
from reclra_compile.view.draw import check_suffix, write_content
from reclra_compile.view.label import number, time_text, width, xml
from reclra_compile.view.palette import DARK, LIGHT, wave_colours
from reclra_compile.view.png import svg_png
from reclra_compile.view.svg import FONTS

FORMATS = (".html", ".svg", ".png")
COLUMNS, PANEL_W, PANEL_H, GAP_X, GAP_Y = 3, 330.0, 230.0, 76.0, 92.0
LEFT, TOP, RIGHT, BOTTOM = 66.0, 112.0, 24.0, 56.0
#: colour of each line, and its dashes: ours are solid and strong
_LOOK = {
    "depth1": (1, ""), "depth2": (2, ""), "groups": (3, ""), "1f1b": (0, "2 3"), "interleaved": (0, "7 4"),
    "zb_h1": (4, "2 3"), "zb_h2": (4, "7 4"), "data_parallel": (5, "7 4"),
}  # fmt: skip
_LINKS = ((0, ""), (1, ""), (2, ""), (3, ""), (4, ""), (5, ""))


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    look: tuple[int, str]
    points: tuple[tuple[float, float, str], ...]  # x, y (NaN: there is none here), what it is


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    x_name: str
    y_name: str
    lines: tuple[_Line, ...]
    logarithmic: bool = False
    marks: bool = False  # it has a legend of its own


def write_sweep(title: str, points: Sequence[Point], even: Sequence[BreakEven], path: str) -> str:
    """Write the picture (.html, .svg or .png) and the points beside it (.json); the name of the latter.

    Raises UserError (V001–V004, F001).
    """
    file = Path(path)
    check_suffix(file, FORMATS)
    suffix = file.suffix.lower()
    svg = to_svg(title, points, even, "light" if suffix == ".png" else "auto")
    if suffix == ".png":
        write_content(file, svg_png(svg, *_size()))
    else:
        write_content(file, svg if suffix == ".svg" else to_html(title, points, even))
    data = {
        "version": 1, "title": title, "points": [asdict(p) for p in points], "break_even": [asdict(b) for b in even],
        "findings": findings(points, even),
    }  # fmt: skip
    beside = str(points_file(file))
    write_text(beside, json.dumps(data, indent=1, ensure_ascii=False))
    return beside


def points_file(picture: Path) -> Path:
    """Where the points of a picture are written."""
    return picture.with_suffix(".json")


def to_svg(title: str, points: Sequence[Point], even: Sequence[BreakEven], theme: str = "auto") -> str:
    """The picture as a standalone SVG file: light, dark, or (auto) as the viewer prefers."""
    style = _rules(theme == "dark")
    if theme == "auto":
        style += f"@media (prefers-color-scheme:dark){{{_rules(True)}}}"
    return _svg(title, points, even, f"<style>{style}</style>", "")


def to_html(title: str, points: Sequence[Point], even: Sequence[BreakEven]) -> str:
    """The picture as a page that fetches nothing: pointing at a dot says what it is."""
    rules = (
        f"{_rules(False)}@media (prefers-color-scheme:dark){{{_rules(True)}}}"
        f"{_rules(False, ':root[data-theme=light] ')}{_rules(True, ':root[data-theme=dark] ')}"
    )
    svg = _svg(title, points, even, "", ' id="chart"')
    said = "".join(f"<li>{xml(line)}</li>" for line in findings(points, even))
    return page(title, "Pointing at a dot says what it is.", rules, svg, "{}", "sweep", f"<ul>{said}</ul>")


def _size() -> tuple[float, float]:
    rows = 2
    return (LEFT + COLUMNS * PANEL_W + (COLUMNS - 1) * GAP_X + RIGHT,
            TOP + rows * PANEL_H + (rows - 1) * GAP_Y + BOTTOM)  # fmt: skip


def _rules(dark: bool, scope: str = "") -> str:
    t, own = (DARK if dark else LIGHT), wave_colours(6, dark)
    rules = {
        ".ground": f"fill:{t.ground}", ".ink": f"fill:{t.ink}", ".faint": f"fill:{t.faint}",
        ".grid": f"stroke:{t.rim};stroke-opacity:.22", ".axis": f"stroke:{t.rim}",
        **{f".l{k}": f"stroke:{c};fill:none" for k, c in enumerate(own)},
        **{f".d{k}": f"fill:{c}" for k, c in enumerate(own)},
    }  # fmt: skip
    return "".join(f"{scope}{name}{{{style}}}" for name, style in rules.items())


def _svg(title: str, points: Sequence[Point], even: Sequence[BreakEven], style: str, name: str) -> str:
    w, h = (number(v) for v in _size())
    parts = [_text(20, 32, title, 16, bold=True), _legend()]
    for k, panel in enumerate(_panels(points, even)):
        row, column = divmod(k, COLUMNS)
        parts.append(_panel(panel, LEFT + column * (PANEL_W + GAP_X), TOP + row * (PANEL_H + GAP_Y)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg"{name} width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        f'font-family="{FONTS}" role="img" aria-label="{xml(title)}">\n<title>{xml(title)}</title>\n{style}\n'
        f'<rect class="ground" width="{w}" height="{h}"/>\n{"".join(parts)}</svg>\n'
    )


def _panels(points: Sequence[Point], even: Sequence[BreakEven]) -> list[_Panel]:
    base = next((p.devices for p in points if p.panel == "links"), 0)
    speed, there = "speed per device ÷ one device's backprop", f"{base} devices"
    made = [
        _Panel("devices, and as many microbatches", "devices", speed, _lines(points, "devices")),
        _Panel(f"microbatches, {there}", "microbatches", speed, _lines(points, "microbatches")),
        _Panel(f"link rate, {there}, {base} microbatches", "bytes per second", speed, _lines(points, "links")),
        _Panel(f"batch, {there}, best microbatches", "samples in a batch", speed, _lines(points, "batch")),
        _Panel("memory of the fullest device", "devices, and as many microbatches", "bytes",
               _lines(points, "devices", memory=True), logarithmic=True),
    ]  # fmt: skip
    by_link: dict[float, list[BreakEven]] = {}
    for b in even:
        by_link.setdefault(b.link_bytes_per_s, []).append(b)
    lines = tuple(
        _Line(f"{rate(link)} links", _LINKS[k % len(_LINKS)], tuple(
            (float(b.devices), float(b.classes), f"{rate(link)} links, {b.devices} devices: {b.classes:,} outputs")
            if b.classes else (float(b.devices), math.nan, "") for b in found
        ))
        for k, (link, found) in enumerate(by_link.items())
    )  # fmt: skip
    made.append(_Panel("above its line, depth 2 beats depth 1", "devices", "outputs", lines, True, True))
    return made


def _lines(points: Iterable[Point], panel: str, memory: bool = False) -> tuple[_Line, ...]:
    at = AXES[panel][1]
    found: dict[str, list[Point]] = {n: [] for n in NAMES}
    for p in points:
        if p.panel == panel:
            found[p.schedule].append(p)
    places = sorted({float(at(p)) for mine in found.values() for p in mine})
    lines = []
    for n, mine in found.items():
        there = {float(at(p)): (p.peak_bytes if memory else p.speed, _about(p)) for p in mine}
        if there:
            lines.append(_Line(NAMES[n], _LOOK[n], tuple((x, *there.get(x, (math.nan, ""))) for x in places)))
    return tuple(lines)


def _about(p: Point) -> str:
    return (
        f"{NAMES[p.schedule]}: {p.devices} devices, {p.microbatches} microbatches, batch {p.batch}, "
        f"{rate(p.link_bytes_per_s)} links: {time_text(p.row_us, p.unit)} a step in a row, {p.speed:.2f} of one "
        f"device's backprop per device, {size(p.peak_bytes)}"
    )


def _text(
    x: float, y: float, text: str, size_: float = 11, anchor: str = "start", tone: str = "ink", bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (f'<text class="{tone}" x="{number(x)}" y="{number(y)}" font-size="{number(size_)}" '
            f'text-anchor="{anchor}"{weight}>{xml(text)}</text>\n')  # fmt: skip


def _legend() -> str:
    x, parts = 20.0, []
    for name, (colour, dash) in _LOOK.items():
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        thick = 2.6 if name in OURS else 1.8
        parts.append(f'<path class="l{colour}" d="M{number(x)} 58h26" stroke-width="{thick}"{dashes}/>')
        parts.append(_text(x + 32, 62, NAMES[name], 12))
        x += 32 + width(NAMES[name], 12) + 18
    return "".join(parts)


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first < 4:  # few powers of ten: 2 and 5 of each as well
        fine = [m * 10.0**k for k in range(first, last + 1) for m in (1, 2, 5)]
        return [t for t in fine if low <= t <= high]
    every = max(1, math.ceil((last - first) / 6))
    return [t for k in range(first, last + 1, every) if low * (1 - 1e-9) <= (t := 10.0**k) <= high * (1 + 1e-9)]


def _tick(v: float) -> str:
    if v >= 1e5 or v < 0.01:
        return f"{v:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"{v:g}"


def _panel(panel: _Panel, left: float, top: float) -> str:
    bottom, right = top + PANEL_H, left + PANEL_W
    xs = [x for line in panel.lines for x, _, _ in line.points] or [1.0]
    ys = [y for line in panel.lines for _, y, _ in line.points if not math.isnan(y)] or [1.0]
    x0, x1 = min(xs), max(max(xs), min(xs) * 2)
    high = max(ys)
    if panel.logarithmic:
        y0, y1 = min(ys) / 1.3, high * 1.3
        marks = _log_ticks(y0, y1)
    else:
        step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 1e9) if high / s <= 8)
        y0, y1 = 0.0, step * math.ceil(high / step + 0.2)
        marks = [k * step for k in range(round(y1 / step) + 1)]

    def across(x: float) -> float:
        return left + math.log(x / x0) / math.log(x1 / x0) * PANEL_W

    def down(y: float) -> float:
        share = math.log(y / y0) / math.log(y1 / y0) if panel.logarithmic else (y - y0) / (y1 - y0)
        return bottom - share * PANEL_H

    out = [_text(left, top - 12, panel.title, 13, bold=True)]
    for y in marks:
        out.append(f'<path class="grid" d="M{number(left)} {number(down(y))}H{number(right)}"/>')
        out.append(_text(left - 7, down(y) + 4, _tick(y) if y else "0", 10.5, "end", "faint"))
    powers = [float(2**k) for k in range(21) if x0 <= 2**k <= x1]
    if x1 / x0 > 1e5 or not powers:
        powers = _log_ticks(x0, x1)
    elif len(powers) > 8:
        powers = powers[::2]
    for x in powers:
        out.append(f'<path class="axis" d="M{number(across(x))} {number(bottom)}v4"/>')
        out.append(_text(across(x), bottom + 17, _tick(x) if x >= 1e5 else f"{x:g}", 10.5, "middle", "faint"))
    out.append(f'<path class="axis" fill="none" d="M{number(left)} {number(top)}V{number(bottom)}H{number(right)}"/>')
    out.append(_text((left + right) / 2, bottom + 36, panel.x_name, 11.5, "middle"))
    out.append(f'<text class="ink" transform="translate({number(left - 46)} {number((top + bottom) / 2)}) rotate(-90)" '
               f'font-size="11.5" text-anchor="middle">{xml(panel.y_name)}</text>\n')  # fmt: skip
    for k, line in enumerate(panel.lines):
        out.append(_curve(line, [(across(x), down(y), about) for x, y, about in line.points]))
        if panel.marks:  # a legend of its own, where lines that fall leave room
            name = line.name if any(not math.isnan(y) for _, y, _ in line.points) else f"{line.name}: never"
            y = bottom - 12 - 16 * (len(panel.lines) - 1 - k)
            out.append(_text(left + 10, y, name, 11, tone=f"d{line.look[0]}"))
    return "".join(out)


def _curve(line: _Line, places: Sequence[tuple[float, float, str]]) -> str:
    colour, dash = line.look
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    thick = 1.8 if dash else 2.6
    path, begins = "", True
    for x, y, _ in places:
        if not math.isnan(y):
            path += f"{'M' if begins else 'L'}{number(x)} {number(y)}"
        begins = math.isnan(y)  # nothing joins what lies on both sides of a gap
    out = []
    if path:
        out = [f'<path class="l{colour}" d="{path}" stroke-width="{thick}" stroke-linejoin="round"{dashes}/>\n']
    for x, y, about in (p for p in places if not math.isnan(p[1])):
        circle = f'<circle class="dot d{colour}" cx="{number(x)}" cy="{number(y)}" r="2.6">'
        out.append(f"{circle}<title>{xml(about)}</title></circle>\n")
    return "".join(out)
