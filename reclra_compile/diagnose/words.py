"""The numbers of a diagnosis as people read them, for the terminal and for the page. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reclra_compile.diagnose.facts import Finding, RegionFacts

ABSENT = "–"
NAMED = 4  #: regions that a line of a warning names

#: titles, and whether a column holds numbers
COLUMNS = (
    ("region", False), ("angle", True), ("error", True), ("error/z", True), ("jump", True), ("saturated", True),
    ("aim", True), ("dead", True), ("‖E‖", True), ("growth", True), ("D(Θ)", True),
)  # fmt: skip


def row(r: RegionFacts) -> tuple[str, ...]:
    """The cells of a region, in the order of `COLUMNS`."""
    t = r.target
    return (
        r.name,
        ABSENT if r.angle is None else f"{r.angle:.1f}°",
        short(r.error),
        short(r.relative_error),
        short(t.jump if t else None),
        percent(t.saturated if t else None),
        ABSENT if t is None or t.aim is None else f"{t.aim:.2f}",
        percent(r.dead),
        short(r.synapse_norm),
        ABSENT if r.synapse_growth is None else f"×{short(r.synapse_growth)}",
        short(r.discrepancy),
    )


def short(value: float | None) -> str:
    """A number in three digits; a dash where there is none."""
    if value is None:
        return ABSENT
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    if 999.5 <= abs(value) < 99999.5:
        return f"{value:.0f}"
    if 1e-3 <= abs(value) < 999.5:
        return f"{value:#.3g}".rstrip(".")
    mantissa, _, power = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(power)}"


def percent(share: float | None) -> str:
    """A share in whole percent; a dash where there is none."""
    return ABSENT if share is None else f"{100.0 * share:.0f} %"


@dataclass(frozen=True)
class Group:
    """Findings of one code: what is said of the worst region, and the regions it holds for, as `where`."""

    code: str
    where: str
    message: str
    suggestion: str


def grouped(found: Sequence[Finding]) -> tuple[Group, ...]:
    """One group per code, in order; the first finding of each code is the worst."""
    by_code: dict[str, list[Finding]] = {}
    for f in found:
        by_code.setdefault(f.code, []).append(f)
    return tuple(
        Group(code, _where([f.region for f in same if f.region]), same[0].message, same[0].suggestion)
        for code, same in by_code.items()
    )


def _where(regions: Sequence[str]) -> str:
    if not regions:
        return ""
    others = regions[1 : 1 + NAMED]
    more = f" and {len(regions) - 1 - NAMED} more" if len(regions) > 1 + NAMED else ""
    also = f" (also {', '.join(others)}{more})" if others else ""
    return f"{regions[0]}{also}: "
