"""The figures of a run's report, and the commands that repeat it, from made-up numbers."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from reclra_compile.report.command import shell
from reclra_compile.report.curves import Panel, panel_svg, value_ticks
from reclra_compile.report.heat import CELLS, heat_svg, scale_of
from reclra_compile.report.summary import Heat, Series
from reclra_compile.view.curves import Axis


def test_a_large_run_makes_a_small_picture() -> None:
    """500 regions over 300 epochs."""
    values = tuple(tuple(10.0 ** -(k % 7) for _ in range(300)) for k in range(500))
    heat = Heat(tuple(f"layer{k}" for k in range(500)), tuple(range(1, 301)), values)
    text = heat_svg(heat, scale_of([heat]), "depth2")
    assert 500 * 20 < text.count("<rect") <= CELLS and len(text) < 2e6 and "<title>" not in text
    written = [float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="end"', text)]
    assert min(b - a for a, b in pairwise(written)) >= 11


def test_bands_and_seeds_are_drawn() -> None:
    def panel(each: tuple[tuple[float | None, ...], ...], **more: Any) -> str:
        s = Series((1, 2, 3), (4.0, 3.0, 2.0), (1.0, 0.5, 0.1), each)
        return panel_svg(Panel("loss", "Loss", "", ((0, "a", s),), **more))

    several = panel(((5.0, 3.5, 2.1), (3.0, None, 1.9)))
    assert several.count('class="band"') == 1 and several.count('class="one"') == 2
    assert panel(((4.0, 3.0, 2.0),)).count("band") == 0


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1.0), (0.5, 60.0), (1.0, 5.0), (3e-4, 2e-3)])
def test_ticks_have_room(low: float, high: float) -> None:
    assert 2 <= len(value_ticks(Axis(low, high, True))) <= 8


def test_words_for_a_shell() -> None:
    text = shell(["reclra-compile", "--data-dir=$HOME/my data", "$HOME/m.py", "a b", "$(x)", "$HOME/`x`"])
    assert text == "reclra-compile \"--data-dir=$HOME/my data\" \"$HOME/m.py\" 'a b' '$(x)' \"$HOME/\\`x\\`\""
