"""D(Θ) of each region over epochs as a heat map, on a logarithmic scale that all wirings share. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reclra_compile.report.summary import Heat
from reclra_compile.view.label import number, shorten, width, xml
from reclra_compile.view.palette import wave_colours

STEPS = 16  #: colours of the scale, classes h0, h1, …
WIDE, TOP, BOTTOM, RIGHT = 860.0, 6.0, 34.0, 12.0
#: names are no wider; a row is between these high, and all rows together no higher than this where they may shrink
NAMES, LOW, HIGH, ALL = 190.0, 4.0, 22.0, 560.0
#: as many columns at most; of more epochs those in equal steps are shown
COLUMNS = 150
#: cells of a map at most, and of one whose cells say their number
CELLS, TITLED = 20_000, 4000
DECADES = 8  #: what lies further below the largest value gets the first colour


def scale_of(heats: Sequence[Heat]) -> tuple[float, float]:
    """The smallest and the largest value that the scale tells apart."""
    positive = [v for h in heats for row in h.values for v in row if v is not None and v > 0] or [1.0]
    high = max(positive)
    return max(min(positive), high * 10.0**-DECADES), high


def colour_rules(dark: bool) -> str:
    """CSS of the scale; dark is little on a light page, and bright is much on both."""
    colours = wave_colours(STEPS + 1, dark)[1:]
    return "".join(f".h{k}{{fill:{c}}}" for k, c in enumerate(colours))


def heat_svg(heat: Heat, scale: tuple[float, float], name: str) -> str:
    """The map of one wiring; rows are regions in the model's order."""
    low, high = scale
    rows = len(heat.regions)
    columns = _columns(len(heat.epochs), max(min(COLUMNS, CELLS // rows), 2))
    tall = min(max(ALL / rows, LOW), HIGH)
    label = min(max((width(r, 11) for r in heat.regions), default=40.0) + 12, NAMES)
    wide = (WIDE - label - RIGHT) / len(columns)
    bottom = TOP + rows * tall
    every = max(1, math.ceil(12.0 / tall))
    out = []
    titled = rows * len(columns) <= TITLED
    for i, (region, values) in enumerate(zip(heat.regions, heat.values, strict=True)):
        y = TOP + i * tall
        if i % every == 0:
            out.append(_text(label - 7, y + min(tall, 12.0) / 2 + 4 + max(tall - 12, 0) / 2,
                             shorten(region, label - 10, 11), "end"))  # fmt: skip
        for j, k in enumerate(columns):
            value = values[k]
            if value is None:
                continue
            x, w = number(label + j * wide), number(wide + 0.3)
            place = f'x="{x}" y="{number(y)}" width="{w}" height="{number(tall)}"'
            said = f"<title>{xml(region)}, epoch {heat.epochs[k]}: {value:.3g}</title>" if titled else ""
            out.append(f'<rect class="h{_step(value, low, high)}" {place}>{said}</rect>')
    for j in _ticks(len(columns), wide):
        out.append(_text(label + (j + 0.5) * wide, bottom + 15, str(heat.epochs[columns[j]]), "middle"))
    out.append(_text(label + (WIDE - RIGHT - label) / 2, bottom + 30, "epoch", "middle"))
    about = f"D(Θ) of each region over epochs, {name}"
    return (
        f'<svg class="heat" viewBox="0 0 {number(WIDE)} {number(bottom + BOTTOM)}" role="img" '
        f'aria-label="{xml(about)}">\n{"".join(out)}</svg>'
    )


def key_svg(scale: tuple[float, float]) -> str:
    """The scale, with its ends."""
    low, high = scale
    ends = _text(64, 12, f"{low:.1e}", "end"), _text(76 + STEPS * 12, 12, f"{high:.1e}, log scale", "start")
    cells = "".join(f'<rect class="h{k}" x="{70 + k * 12}" y="2" width="12.3" height="12"/>' for k in range(STEPS))
    return (
        f'<svg class="key" viewBox="0 0 400 18" role="img" aria-label="from {low:.2g} to {high:.2g}, log scale">'
        f"{ends[0]}{cells}{ends[1]}</svg>"
    )


def _columns(epochs: int, most: int) -> list[int]:
    if epochs <= most:
        return list(range(epochs))
    return sorted({round(k * (epochs - 1) / (most - 1)) for k in range(most)})


def _ticks(columns: int, wide: float) -> list[int]:
    """Columns whose epoch is written, far enough from each other."""
    every = max(1, math.ceil(38.0 / wide))
    return [j for j in range(columns) if j % every == 0]


def _step(value: float, low: float, high: float) -> int:
    if value <= low:
        return 0
    if high <= low:
        return STEPS - 1
    return min(int(math.log(value / low) / math.log(high / low) * STEPS), STEPS - 1)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}">{xml(text)}</text>'
