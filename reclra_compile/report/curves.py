"""Panels of curves for a page: one number over epochs, a line a wiring, with the band and the lines of its seeds.

Colours are classes (c0, c1, …), so that a page can be light or dark and hide a wiring. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reclra_compile.report.summary import Report, Series
from reclra_compile.view.curves import Axis, value_axis
from reclra_compile.view.label import number, xml

WIDE, HIGH = 420.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 12.0, 10.0, 36.0
#: lines of single seeds are drawn up to this many
SEEDS = 12
TICKS = 8
#: dots mark the epochs of curves that have no more than these
DOTS = 30

TITLES = {
    "loss": "Training loss", "train_error": "Training {}", "valid_error": "Validation {}", "test_error": "Test {}",
    "discrepancy": "Discrepancy D(Θ)", "synapse_norm": "Norm of the error synapses",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One plot: its name, its title, its unit, and a series for each wiring that has one."""

    name: str
    title: str
    unit: str
    series: tuple[tuple[int, str, Series], ...]


def panels_of(report: Report) -> list[Panel]:
    """The panels that have something to show."""
    found = []
    for name, title in TITLES.items():
        series = [(k, g.label, g.series[name]) for k, g in enumerate(report.groups) if name in g.series]
        if name == "synapse_norm":
            series = [s for s in series if any(s[2].mean)]  # tied kernels have none
        unit = " %" if report.measure == "error" and name.endswith("error") else ""
        if series:
            found.append(Panel(name, title.format(report.measure), unit, tuple(series)))
    return found


def panel_svg(panel: Panel) -> str:
    """The plot; the place of its axes is that of `geometry`."""
    axis, across = axes_of(panel)
    out = []
    for tick in value_ticks(axis):
        y = _y(axis, tick)
        out.append(f'<path class="grid" d="M{number(LEFT)} {number(y)}H{number(WIDE - RIGHT)}"/>')
        out.append(_text(LEFT - 7, y + 4, f"{tick:g}", "end"))
    for tick in epoch_ticks(across):
        x = _x(across, tick)
        out.append(f'<path class="axis" d="M{number(x)} {number(HIGH - BOTTOM)}v4"/>')
        out.append(_text(x, HIGH - BOTTOM + 17, f"{tick:g}", "middle"))
    out.append(f'<path class="axis" d="M{number(LEFT)} {number(TOP)}V{number(HIGH - BOTTOM)}H{number(WIDE - RIGHT)}"/>')
    out.append(_text((LEFT + WIDE - RIGHT) / 2, HIGH - 4, "epoch", "middle"))
    if axis.logarithmic:
        out.append(_text(WIDE - RIGHT, TOP + 4, "log scale", "end"))
    out += [_curve(k, name, s, axis, across) for k, name, s in reversed(panel.series)]
    out.append(f'<path class="hair" d="M0 {number(TOP)}V{number(HIGH - BOTTOM)}" visibility="hidden"/>')
    about = f"{panel.title} over epochs; arrow keys read it out"
    return (
        f'<svg class="plot" viewBox="0 0 {number(WIDE)} {number(HIGH)}" role="img" tabindex="0" '
        f'aria-label="{xml(about)}" data-panel="{xml(panel.name)}">\n{"".join(out)}</svg>'
    )


def axes_of(panel: Panel) -> tuple[Axis, Axis]:
    """The axis of values and that of epochs."""
    shown: list[float] = []
    for _, _, s in panel.series:
        shown += [m + d for m, d in zip(s.mean, s.deviation, strict=True)]
        shown += [v for line in s.each for v in line if v is not None]  # a band that reaches lower is cut off
    axis = value_axis(shown)
    first = min(s.epochs[0] for _, _, s in panel.series)
    last = max(s.epochs[-1] for _, _, s in panel.series)
    return axis, Axis(float(first) - (0.5 if first == last else 0), float(last) + (0.5 if first == last else 0), False)


def value_ticks(axis: Axis) -> list[float]:
    """Ticks with room between them: of a logarithmic axis over much 1 and 3 of a decade, or decades alone."""
    ticks = axis.ticks()
    for digits in ("12357", "125", "13", "1"):
        kept = [t for t in ticks if not axis.logarithmic or f"{t:.0e}"[0] in digits]
        if len(kept) <= TICKS:
            return kept
    return kept[:: math.ceil(len(kept) / TICKS)]


def epoch_ticks(across: Axis) -> list[float]:
    """Whole epochs."""
    return [t for t in across.ticks() if t == int(t)] or [round((across.low + across.high) / 2)]


def geometry(panel: Panel) -> dict[str, Any]:
    """What a script needs to read the plot: places of epochs in pixels, and the numbers of each wiring there."""
    _, across = axes_of(panel)
    epochs = sorted({e for _, _, s in panel.series for e in s.epochs})
    curves = []
    for k, name, s in panel.series:
        at = {e: i for i, e in enumerate(s.epochs)}
        mean = [s.mean[at[e]] if e in at else None for e in epochs]
        deviation = [s.deviation[at[e]] if e in at and s.count[at[e]] > 1 else None for e in epochs]
        curves.append({"k": k, "name": name, "mean": mean, "std": deviation if len(s.each) > 1 else None})
    return {"name": panel.name, "unit": panel.unit, "epochs": epochs, "x": [_x(across, e) for e in epochs],
            "curves": curves}  # fmt: skip


def _curve(k: int, name: str, s: Series, axis: Axis, across: Axis) -> str:
    def points(ys: Sequence[float | None]) -> list[str]:
        pairs = [(e, y) for e, y in zip(s.epochs, ys, strict=True) if y is not None]
        return [f"{number(_x(across, e))},{number(_y(axis, y))}" for e, y in pairs]

    out = []
    if len(s.each) > 1:
        high = [m + d for m, d in zip(s.mean, s.deviation, strict=True)]
        low = [m - d for m, d in zip(s.mean, s.deviation, strict=True)]
        out.append(f'<polygon class="band" points="{" ".join(points(high) + points(low)[::-1])}"/>')
        out += [f'<polyline class="one" points="{" ".join(points(line))}"/>' for line in s.each[:SEEDS]]
    out.append(f'<polyline class="mean" points="{" ".join(points(s.mean))}"/>')
    if len(s.epochs) <= DOTS:
        marks = (place.split(",") for place in points(s.mean))
        out += [f'<circle class="dot" cx="{x}" cy="{y}" r="2.4"/>' for x, y in marks]
    return f'<g class="curve c{k}" data-wiring="{k}"><title>{xml(name)}</title>{"".join(out)}</g>\n'


def _x(across: Axis, epoch: float) -> float:
    return LEFT + across.at(epoch) * (WIDE - RIGHT - LEFT)


def _y(axis: Axis, value: float) -> float:
    return HIGH - BOTTOM - axis.at(value) * (HIGH - BOTTOM - TOP)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}">{xml(text)}</text>'
