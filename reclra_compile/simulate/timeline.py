"""Timelines as pictures: a lane for each device, a colour for each kind of work, charts in one scale."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from reclra_compile.simulate.chart import KINDS, LINK, Bar, Chart
from reclra_compile.simulate.page import page
from reclra_compile.view.draw import check_suffix, write_content
from reclra_compile.view.label import number, shorten, time_text, width, xml
from reclra_compile.view.palette import DARK, LIGHT, wave_colours
from reclra_compile.view.png import svg_png
from reclra_compile.view.svg import FONTS

WIDTH = 1180.0
LEFT, RIGHT = 116.0, 22.0
LANE, WIRE, GAP = 20.0, 5.0, 5.0  #: heights: of a device's bars, of its link's, between devices
TOP, HEAD, FOOT = 66.0, 44.0, 34.0
FORMATS = (".html", ".svg", ".png")
_NEUTRAL = ("#8b949e", "#66717d")  #: messages, light and dark


def write_timeline(charts: Sequence[Chart], path: str) -> None:
    """Write charts as .html, .svg or .png; raises UserError (V001–V004)."""
    file = Path(path)
    check_suffix(file, FORMATS)
    suffix = file.suffix.lower()
    if suffix == ".png":
        write_content(file, svg_png(to_svg(charts, "light"), WIDTH, _height(charts)))
    else:
        write_content(file, to_html(charts) if suffix == ".html" else to_svg(charts))


def to_svg(charts: Sequence[Chart], theme: str = "auto") -> str:
    """The charts as a standalone SVG file: light, dark, or (auto) as the viewer prefers."""
    h = _height(charts)
    style = _rules(theme == "dark")
    if theme == "auto":
        style += f"@media (prefers-color-scheme:dark){{{_rules(True)}}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{number(WIDTH)}" height="{number(h)}" '
        f'viewBox="0 0 {number(WIDTH)} {number(h)}" font-family="{FONTS}" role="img" '
        f'aria-label="{xml(_about(charts))}">\n<title>{xml(_about(charts))}</title>\n<style>{style}</style>\n'
        f'<rect class="ground" width="{number(WIDTH)}" height="{number(h)}"/>\n{_legend(charts)}{_body(charts)}</svg>\n'
    )


def to_html(charts: Sequence[Chart]) -> str:
    """The charts as a page that fetches nothing: wheel zooms, dragging moves, pointing explains."""
    height = _height(charts)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="chart" width="{number(WIDTH)}" height="{number(height)}" '
        f'viewBox="0 0 {number(WIDTH)} {number(height)}" font-family="{FONTS}" role="group" '
        f'aria-label="{xml(_about(charts))}">\n{_legend(charts)}{_body(charts, live=True)}</svg>'
    )
    data = {"left": LEFT, "right": WIDTH - RIGHT, "until": _until(charts)}
    rules = (
        f"{_rules(False)}@media (prefers-color-scheme:dark){{{_rules(True)}}}"
        f"{_rules(False, ':root[data-theme=light] ')}{_rules(True, ':root[data-theme=dark] ')}"
    )
    hint = "Wheel zooms, dragging moves, pointing at a bar explains it, 0 shows all."
    return page(_about(charts), hint, rules, svg, json.dumps(data), "timeline")


def _about(charts: Sequence[Chart]) -> str:
    return "Timeline: " + "; ".join(c.title for c in charts)


def _until(charts: Sequence[Chart]) -> float:
    return max((c.shown_us for c in charts), default=0.0) or 1.0


def _lane_height(chart: Chart) -> float:
    wires = any(b.kind == LINK for b in chart.bars)
    return LANE + GAP + (WIRE + 1) * wires


def _height(charts: Sequence[Chart]) -> float:
    return math.ceil(TOP + sum(HEAD + FOOT + len(c.lanes) * _lane_height(c) for c in charts))


def _rules(dark: bool, scope: str = "") -> str:
    """CSS of every part on a light or a dark background."""
    t = DARK if dark else LIGHT
    own = wave_colours(6, dark)
    colours = (*(own[k] for k in (1, 2, 3, 4, 5, 0)), _NEUTRAL[dark])
    rules = {
        ".ground": f"fill:{t.ground}", ".ink": f"fill:{t.ink}", ".faint": f"fill:{t.faint}",
        ".lane": f"fill:{t.rim};fill-opacity:{t.tint}", ".grid": f"stroke:{t.rim};stroke-opacity:.28",
        ".end": f"stroke:{t.ink};stroke-dasharray:3 3", ".torn": f"stroke:{t.faint};fill:none",
        ".on": f"fill:{t.ground}",
        **{f".k{k}": f"fill:{c}" for k, c in enumerate(colours)},
    }  # fmt: skip
    return "".join(f"{scope}{name}{{{style}}}" for name, style in rules.items())


def _text(x: float, y: float, text: str, size: float = 11, tone: str = "ink", anchor: str = "", more: str = "") -> str:
    at = f' text-anchor="{anchor}"' if anchor else ""
    place = f'x="{number(x)}" y="{number(y)}" font-size="{number(size)}"{at}'
    return f'<text class="{tone}" {place}{more}>{xml(text)}</text>\n'


def _legend(charts: Sequence[Chart]) -> str:
    used = sorted({b.kind for c in charts for b in c.bars})
    x, parts = LEFT, [_text(18, 26, "Timeline", 16, more=' font-weight="600"')]
    for k in used:
        parts.append(f'<rect class="k{k}" x="{number(x)}" y="41" width="12" height="12" rx="2"/>')
        parts.append(_text(x + 17, 51, KINDS[k], 11.5, "faint"))
        x += 17 + width(KINDS[k], 11.5) * 0.9 + 18
    return "".join(parts)


def _body(charts: Sequence[Chart], live: bool = False) -> str:
    until, y, parts = _until(charts), TOP, []
    if live:
        parts.append(f'<clipPath id="plot"><rect x="{number(LEFT)}" y="0" width="{number(WIDTH - LEFT - RIGHT)}" '
                     f'height="{number(_height(charts))}"/></clipPath>')  # fmt: skip
    for chart in charts:
        parts.append(_chart(chart, y, until, live))
        y += HEAD + FOOT + len(chart.lanes) * _lane_height(chart)
    return "".join(parts)


def _chart(chart: Chart, top: float, until: float, live: bool) -> str:
    scale = (WIDTH - LEFT - RIGHT) / until
    step, first = _lane_height(chart), top + HEAD
    bottom = first + len(chart.lanes) * step
    name = shorten(chart.title, 560, 13, True)
    parts = [_text(18, top + 24, name, 13, more=' font-weight="600"')]
    part = f"; shown: {chart.note}" if chart.note else ""
    said = f"one step takes {time_text(chart.makespan_us, chart.unit)}{part}"
    parts.append(_text(WIDTH - RIGHT, top + 24, said, 11.5, "faint", "end"))
    for k, lane in enumerate(chart.lanes):
        y = first + k * step
        parts.append(_text(LEFT - 10, y + LANE * 0.7, shorten(lane, LEFT - 26, 11), 11, "ink", "end"))
        parts.append(f'<rect class="lane" x="{number(LEFT)}" y="{number(y)}" '
                     f'width="{number(WIDTH - LEFT - RIGHT)}" height="{number(step - GAP)}"/>')  # fmt: skip
    clip = ' clip-path="url(#plot)"' if live else ""
    parts.append(f'<g class="plot"{clip}>')
    for tick in ticks(until):
        x = LEFT + tick * scale
        line = f'<path class="grid" d="M{number(x)} {number(first)}V{number(bottom)}"/>'
        label = _text(x, bottom + 14, time_text(tick, chart.unit), 10.5, "faint", "middle" if tick else "start")
        parts.append(f'<g class="tick" data-t="{tick!r}">{line}{label}</g>')
    parts += [_bar(b, first + b.lane * step, scale, live, chart.unit) for b in chart.bars]
    if chart.shown_us < chart.makespan_us:
        parts.append(_torn(chart, first, bottom, scale, until, live))
    else:
        x = LEFT + chart.makespan_us * scale
        parts.append(f'<g class="tick" data-t="{chart.makespan_us!r}"><path class="end" d="M{number(x)} '
                     f'{number(first - 4)}V{number(bottom)}"/></g>')  # fmt: skip
    return "".join(parts) + "</g>\n"


def _torn(chart: Chart, first: float, bottom: float, scale: float, until: float, live: bool) -> str:
    """Where the picture of a step is cut off: a jagged edge, and no lanes behind it, which would look idle."""
    x, about = LEFT + chart.shown_us * scale, f"not shown: what follows {time_text(chart.shown_us, chart.unit)}"
    place = (f'x="{number(x)}" y="{number(first - 3)}" width="{number(WIDTH - RIGHT - x)}" '
             f'height="{number(bottom - first + 3)}"')  # fmt: skip
    data = f' class="bar" data-s="{chart.shown_us!r}" data-e="{until!r}" data-about="{xml(about)}"' if live else ""
    teeth = "l4 4l-8 8l4 4" * max(1, int((bottom - first) / 16))
    return (
        f'<g{data}><title>{xml(about)}</title><rect class="ground" {place}/></g>\n<g class="tick" '
        f'data-t="{chart.shown_us!r}"><path class="torn" d="M{number(x)} {number(first - 3)}{teeth}"/></g>\n'
    )


def _bar(b: Bar, y: float, scale: float, live: bool, unit: str) -> str:
    x, w = LEFT + b.start_us * scale, max((b.end_us - b.start_us) * scale, 0.4)
    h = LANE
    if b.kind == LINK:
        y, h = y + LANE + 1, WIRE
    edge = 0.6 if w > 3 else 0.0
    about = f"{b.text}, microbatch {b.microbatch}: {time_text(b.start_us, unit)} to {time_text(b.end_us, unit)}"
    place = f'x="{x:.2f}" y="{number(y)}" width="{w - edge:.2f}" height="{number(h)}"'
    label = ""
    digits = str(b.microbatch)
    if b.kind != LINK and (live or w > width(digits, 10) + 3):
        hidden = "" if w > width(digits, 10) + 3 else ' visibility="hidden"'
        label = _text(x + w / 2, y + LANE * 0.7, digits, 10, "on", "middle", hidden)
    if live:
        data = f' data-s="{b.start_us:.6g}" data-e="{b.end_us:.6g}" data-about="{xml(about)}"'
        return f'<g class="bar"{data}><rect class="k{b.kind}" {place}/>{label}</g>\n'
    return f'<g><title>{xml(about)}</title><rect class="k{b.kind}" {place}/>{label}</g>\n'


def ticks(until: float, most: int = 10) -> list[float]:
    """Round times from 0 to `until`, at most `most` + 1 of them."""
    raw = until / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * (1 - 1e-9))
    return [k * step for k in range(int(until / step * (1 + 1e-9)) + 1)]
