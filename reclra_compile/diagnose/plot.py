"""The picture of a diagnosis: small multiples over training, one line per region. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reclra_compile.diagnose.facts import Diagnosis, RegionFacts
from reclra_compile.view.label import number, shorten, xml
from reclra_compile.view.palette import DARK, LIGHT, wave_colours
from reclra_compile.view.svg import FONTS

COLUMNS, PANEL_W, PANEL_H, GAP_X, GAP_Y = 3, 250.0, 150.0, 62.0, 70.0
LEFT, TOP, LEGEND_W = 58.0, 104.0, 170.0
WIDTH = LEFT + COLUMNS * PANEL_W + (COLUMNS - 1) * GAP_X + 24.0 + LEGEND_W
HEIGHT = TOP + 2 * PANEL_H + GAP_Y + 52.0
LISTED = 18  #: regions that the legend has room for
DECADES = 12  #: a logarithmic axis shows no more

Value = Callable[[RegionFacts], "float | None"]
Point = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """One small plot: its title, what it shows of a region, and its axis (`top` None: logarithmic)."""

    title: str
    value: Value
    top: float | None = None
    line: float | None = None
    unit: str = ""
    absent: str = ""


PANELS = (
    Panel("angle between ΔW and the gradient", lambda r: r.angle, top=180.0, line=90.0, unit="°", absent="no updates"),
    Panel("error neurons, RMS", lambda r: r.error, absent="no error neurons"),
    Panel("target jump ‖z − y‖ ÷ ‖z‖", lambda r: r.target.jump if r.target else None, absent="no targets y"),
    Panel("error synapses ‖E‖", lambda r: r.synapse_norm, absent="no synapses of their own"),
    Panel("activities, RMS", lambda r: r.activity, absent="no activities"),
    Panel("dead units", lambda r: None if r.dead is None else 100.0 * r.dead, top=100.0, unit=" %",
          absent="no activities"),
)  # fmt: skip


def to_svg(diagnosis: Diagnosis, theme: str = "light") -> str:
    """The picture as a standalone SVG file, `theme` light or dark; WIDTH × HEIGHT pixels."""
    dark = theme == "dark"
    t = DARK if dark else LIGHT
    colours = wave_colours(len(diagnosis.plan.regions), dark)
    style = f"{_rules(t.ground, t.ink, t.faint, t.forward)}{''.join(_line_rule(k, c) for k, c in enumerate(colours))}"
    return _svg(diagnosis, f"<style>{style}</style>\n", f' width="{number(WIDTH)}" height="{number(HEIGHT)}"')


def page_style(regions: int) -> str:
    """CSS for `page_svg`, on light and dark backgrounds."""

    def block(dark: bool) -> str:
        t, colours = DARK if dark else LIGHT, wave_colours(regions, dark)
        lines = "".join(_line_rule(k, c) for k, c in enumerate(colours))
        return _rules(t.ground, t.ink, t.faint, t.forward) + lines

    return f"{block(False)}\n@media (prefers-color-scheme:dark){{{block(True)}}}"


def page_svg(diagnosis: Diagnosis) -> str:
    """The picture for a page that has `page_style`; it grows and shrinks with the page."""
    return _svg(diagnosis, "", "")


def _rules(ground: str, ink: str, faint: str, grid: str) -> str:
    return (
        f".ground{{fill:{ground}}}.ink{{fill:{ink}}}.faint{{fill:{faint}}}.grid{{stroke:{grid};stroke-opacity:.35}}"
        f".axis{{stroke:{grid};fill:none}}.ref{{stroke:{faint};stroke-dasharray:4 4}}"
    )


def _line_rule(k: int, colour: str) -> str:
    return f".r{k}{{stroke:{colour}}}.f{k}{{fill:{colour}}}"


def _svg(d: Diagnosis, style: str, size: str) -> str:
    order = _order(d)
    parts = [_panel(d, panel, k, order) for k, panel in enumerate(PANELS)]
    w, h = number(WIDTH), number(HEIGHT)
    about = f"{d.plan.name} on {d.plan.model}, measured at {len(d.probes)} points over {d.last.step} steps"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg"{size} viewBox="0 0 {w} {h}" font-family="{FONTS}" role="img" '
        f'aria-label="{xml(about)}">\n{style}<rect class="ground" width="{w}" height="{h}"/>\n{_heading(d)}'
        f"{''.join(parts)}{_legend(d, order)}</svg>\n"
    )


def _order(d: Diagnosis) -> dict[str, int]:
    """The number of each region's colour: the output is neutral, the others go from input to output."""
    output = d.plan.waves[0][0]
    others = [r.name for r in d.plan.regions if r.name != output]
    return {output: 0, **{name: k for k, name in enumerate(others, 1)}}


def _text(
    x: float, y: float, text: str, size: float = 11, anchor: str = "start", tone: str = "ink", more: str = ""
) -> str:
    return (
        f'<text x="{number(x)}" y="{number(y)}" font-size="{number(size)}" text-anchor="{anchor}" '
        f'class="{tone}"{more}>{xml(text)}</text>\n'
    )


def _heading(d: Diagnosis) -> str:
    first, last = d.probes[0], d.last
    title = shorten(f"{d.plan.model} × {d.plan.name}", WIDTH - 2 * LEFT, 18, bold=True)
    facts = (
        f"{d.data}, step 0 to {last.step}: loss {first.loss:.3g} to {last.loss:.3g}, D(Θ) {first.discrepancy:.3g} "
        f"to {last.discrepancy:.3g}; measured on {d.samples} training samples"
    )
    stopped = f"; stopped: {d.stopped}" if d.stopped else ""
    return _text(LEFT, 36, title, 18, more=' font-weight="600"') + _text(
        LEFT, 58, shorten(facts + stopped, WIDTH - LEFT - 20, 12), 12, tone="faint"
    )


def _panel(d: Diagnosis, panel: Panel, k: int, order: dict[str, int]) -> str:
    x = LEFT + (k % COLUMNS) * (PANEL_W + GAP_X)
    y = TOP + (k // COLUMNS) * (PANEL_H + GAP_Y)
    title = _text(x, y - 12, panel.title, 12.5, more=' font-weight="600"')
    lines = {r.name: [(p.step, panel.value(p.of(r.name))) for p in d.probes] for r in d.plan.regions}
    values = [v for line in lines.values() for _, v in line if v is not None and math.isfinite(v)]
    frame = f'<path class="axis" d="M{number(x)} {number(y)}v{number(PANEL_H)}h{number(PANEL_W)}"/>\n'
    if not values:
        return title + frame + _text(x + PANEL_W / 2, y + PANEL_H / 2, panel.absent, 11.5, "middle", "faint")
    axis = _Linear(panel.top, panel.unit) if panel.top is not None else _Log(values)
    last = max(d.last.step, 1)

    def at(step: int, value: float) -> Point:
        return x + PANEL_W * step / last, y + PANEL_H * (1.0 - axis.place(value))

    out = [title]
    for value, label in axis.ticks():
        ty = at(0, value)[1]
        out.append(f'<path class="grid" d="M{number(x)} {number(ty)}h{number(PANEL_W)}"/>\n')
        out.append(_text(x - 7, ty + 3.5, label, 10.5, "end", "faint"))
    if panel.line is not None:
        out.append(f'<path class="ref" d="M{number(x)} {number(at(0, panel.line)[1])}h{number(PANEL_W)}"/>\n')
    out.append(frame)
    for probe in d.probes:
        px = at(probe.step, values[0])[0]
        out.append(f'<path class="axis" d="M{number(px)} {number(y + PANEL_H)}v4"/>\n')
        out.append(_text(px, y + PANEL_H + 16, str(probe.step), 10.5, "middle", "faint"))
    out.append(_text(x + PANEL_W / 2, y + PANEL_H + 31, "step", 10.5, "middle", "faint"))
    for name in sorted(lines, key=lambda n: -order[n]):
        shown = [(s, v) for s, v in lines[name] if v is not None and math.isfinite(v) and axis.has(v)]
        out.append(_line(name, order[name], shown, at, panel.unit))
    return "".join(out)


def _line(
    name: str, colour: int, shown: Sequence[tuple[int, float]], at: Callable[[int, float], Point], unit: str
) -> str:
    places = [at(s, v) for s, v in shown]
    path = " ".join(f"{number(px)},{number(py)}" for px, py in places)
    line = f'<polyline class="r{colour}" fill="none" stroke-width="1.8" points="{path}"/>\n' if len(places) > 1 else ""
    dots = (
        f'<circle class="f{colour}" cx="{number(px)}" cy="{number(py)}" r="2.6">'
        f"<title>{xml(f'{name}, step {s}: {v:.3g}{unit}')}</title></circle>\n"
        for (px, py), (s, v) in zip(places, shown, strict=True)
    )
    return line + "".join(dots)


def _legend(d: Diagnosis, order: dict[str, int]) -> str:
    x = LEFT + COLUMNS * PANEL_W + (COLUMNS - 1) * GAP_X + 26.0
    names = [r.name for r in d.plan.regions]
    if len(names) > LISTED:  # the ends, and as many between them as fit
        picked = sorted({round(k * (len(names) - 1) / (LISTED - 1)) for k in range(LISTED)})
        shown = [names[k] for k in picked]
    else:
        shown = names
    out = [_text(x, TOP - 12, "regions", 12.5, more=' font-weight="600"')]
    output = d.plan.waves[0][0]
    for k, name in enumerate(shown):
        y = TOP + 6 + 18.0 * k
        label = shorten(f"{name} (output)" if name == output else name, LEGEND_W - 40, 11.5)
        out.append(f'<path class="r{order[name]}" stroke-width="3" d="M{number(x)} {number(y - 4)}h18"/>\n')
        out.append(_text(x + 26, y, label, 11.5))
    if len(shown) < len(names):
        between = f"and {len(names) - len(shown)} between them"
        out.append(_text(x, TOP + 6 + 18.0 * len(shown), between, 11, tone="faint"))
    return "".join(out)


class _Linear:
    """An axis from 0 to `top`, with four intervals."""

    def __init__(self, top: float, unit: str) -> None:
        self.top, self.unit = top, unit

    def has(self, value: float) -> bool:
        return 0.0 <= value <= self.top

    def place(self, value: float) -> float:
        return value / self.top

    def ticks(self) -> list[tuple[float, str]]:
        return [(v, f"{v:g}{self.unit}") for v in (self.top * k / 4 for k in range(5))]


class _Log:
    """An axis over the decades of the positive values; zeros, and what lies below `DECADES` of them, are left out."""

    def __init__(self, values: Sequence[float]) -> None:
        positive = [v for v in values if v > 0.0] or [1.0]
        self.high = math.ceil(math.log10(max(positive)) + 1e-9)
        self.low = max(math.floor(math.log10(min(positive)) - 1e-9), self.high - DECADES)
        self.low = min(self.low, self.high - 1)

    def has(self, value: float) -> bool:
        return value >= 10.0**self.low

    def place(self, value: float) -> float:
        return (math.log10(value) - self.low) / (self.high - self.low) if value > 0.0 else 0.0

    def ticks(self) -> list[tuple[float, str]]:
        step = max(1, math.ceil((self.high - self.low) / 4))
        return [(10.0**k, _power(k)) for k in range(self.low, self.high + 1, step)]


_UP = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power(k: int) -> str:
    return f"{10.0**k:g}" if -3 <= k <= 4 else f"10{str(k).translate(_UP)}"
