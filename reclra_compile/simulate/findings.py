"""What a sweep shows, in sentences: who is fastest where, and from where on backprop's schedules catch up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from reclra_compile.placement.faults import size
from reclra_compile.simulate.sweep import NAMES, OURS, BreakEven, Point
from reclra_compile.view.label import amount

_EQUAL = 1e-6  #: speeds that differ by less are equal
AXES: dict[str, tuple[str, Callable[[Point], float]]] = {
    "devices": ("devices, with as many microbatches", lambda p: p.devices),
    "microbatches": ("microbatches", lambda p: p.microbatches),
    "links": ("of link rate", lambda p: p.link_bytes_per_s),
    "batch": ("samples in a batch", lambda p: p.batch),
}
"""What varies in each panel of points, and where a point stands on it."""


def rate(bytes_per_s: float) -> str:
    """A link's rate as a person reads it."""
    return amount(bytes_per_s, "B/s") if bytes_per_s else "free"


def findings(points: Sequence[Point], even: Iterable[BreakEven]) -> tuple[str, ...]:
    """Sentences about all panels; the last ones say where error pathways do not win."""
    by_panel: dict[str, dict[str, dict[float, Point]]] = defaultdict(lambda: defaultdict(dict))
    for p in points:
        by_panel[p.panel][p.schedule][AXES[p.panel][1](p)] = p
    said = [line for panel, found in by_panel.items() for line in _panel(panel, found)]
    said += _wide(even)
    said += _memory(by_panel.get("devices", {}))
    return tuple(said)


def _panel(panel: str, found: dict[str, dict[float, Point]]) -> list[str]:
    """Who is fastest over one axis, and where the best of backprop's schedules is at least as fast as ours."""
    places = sorted({x for line in found.values() for x in line})
    what = AXES[panel][0]
    winners: dict[str, list[float]] = defaultdict(list)
    for x in places:
        best = max((line[x] for line in found.values() if x in line), key=lambda p: p.speed)
        winners[best.schedule].append(x)
    won = "; ".join(f"{NAMES[n]} {_ranges(xs, places, panel)}" for n, xs in winners.items())
    said = [f"{panel}: the fastest is {won} ({what})"]
    for name in OURS:
        ahead = []
        for rival in (n for n in NAMES if n not in OURS):
            both = [x for x in places if x in found[name] and x in found.get(rival, {})]
            there = [x for x in both if found[rival][x].speed >= found[name][x].speed * (1 - _EQUAL)]
            ahead.append(f"{NAMES[rival]} {_ranges(there, both, panel)}")
        said.append(f"{panel}: at least as fast as {NAMES[name]}: {', '.join(ahead)}")
    return said


def _ranges(xs: Sequence[float], of: Sequence[float], panel: str) -> str:
    """Which of the places `of` are in `xs`: nowhere, everywhere, or ranges."""
    if not xs:
        return "nowhere"
    if len(xs) == len(of):
        return "everywhere"

    def text(x: float) -> str:
        return rate(x) if panel == "links" else f"{x:g}"

    runs: list[list[float]] = []
    for i, x in enumerate(of):
        if x in xs:
            if runs and i and of[i - 1] == runs[-1][-1]:
                runs[-1].append(x)
            else:
                runs.append([x])
    return ", ".join(text(r[0]) if len(r) == 1 else f"{text(r[0])} to {text(r[-1])}" for r in runs)


def _wide(even: Iterable[BreakEven]) -> list[str]:
    by_link: dict[float, list[BreakEven]] = defaultdict(list)
    for b in even:
        by_link[b.link_bytes_per_s].append(b)
    lines = []
    for link, found in by_link.items():
        said = ", ".join(f"{b.classes:,} on {b.devices}" if b.classes else f"never on {b.devices}" for b in found)
        lines.append(f"depth 2 is faster than depth 1 from this many outputs on, {rate(link)} links: {said} devices")
    return lines


def _memory(found: dict[str, dict[float, Point]]) -> list[str]:
    places = sorted({x for line in found.values() for x in line})
    if not places:
        return []
    x = places[-1]
    said = ", ".join(f"{NAMES[n]} {size(line[x].peak_bytes)}" for n, line in found.items() if x in line)
    return [f"memory of the fullest device at {x:g} devices and microbatches: {said}"]
