"""Colours that people with colour-blindness can tell apart, for light and dark backgrounds."""

from __future__ import annotations

from dataclasses import dataclass

# Okabe–Ito, without its yellow and sky blue for which a thin line on white has too little contrast
_FEW_LIGHT = ("#3f4650", "#0072b2", "#d55e00", "#009e73", "#b8578f", "#c98a00")
_FEW_DARK = ("#c9d1d9", "#56b4e9", "#f0813a", "#2fc79a", "#e29ac4", "#f0c04a")
# viridis at equal steps
_VIRIDIS = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of everything that does not belong to a wave."""

    ground: str
    ink: str
    faint: str
    forward: str
    box: str
    rim: str
    tint: float


LIGHT = Theme("#ffffff", "#1c2128", "#5b6570", "#a3acb6", "#ffffff", "#8b949e", 0.07)
DARK = Theme("#0f141a", "#e8edf2", "#98a4b0", "#5d6874", "#171d25", "#66717d", 0.16)


def few(waves: int) -> bool:
    """True where each wave can have a colour of its own; more waves share a continuous scale."""
    return waves <= len(_FEW_LIGHT)


def wave_colours(waves: int, dark: bool = False) -> tuple[str, ...]:
    """One colour for each wave; wave 0, the output, is neutral."""
    own = _FEW_DARK if dark else _FEW_LIGHT
    if few(waves):
        return own[: max(waves, 1)]
    # the ends of viridis that vanish on this background are left out
    low, high = (0.25, 1.0) if dark else (0.0, 0.8)
    return own[:1] + tuple(_viridis(low + (high - low) * k / (waves - 2)) for k in range(waves - 1))


def _viridis(at: float) -> str:
    place = at * (len(_VIRIDIS) - 1)
    i = min(int(place), len(_VIRIDIS) - 2)
    part = place - i
    rgb = (round(a + (b - a) * part) for a, b in zip(_VIRIDIS[i], _VIRIDIS[i + 1], strict=True))
    return "#" + "".join(f"{c:02x}" for c in rgb)
