"""The picture of a wiring inside a page, whose colours follow the page's. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from reclra_compile.ir import Plan
from reclra_compile.report.summary import Group
from reclra_compile.view.drawing import Drawing
from reclra_compile.view.label import number
from reclra_compile.view.layout import layout
from reclra_compile.view.svg import style_rules, to_svg


@lru_cache(maxsize=16)
def _drawing(plan: Plan) -> Drawing:
    return layout(plan)


def picture(k: int, group: Group) -> str:
    """The picture of the wiring of group `k`; `picture_rules` has its colours."""
    assert group.plan is not None
    drawing = _drawing(group.plan)
    return f'<div class="pic{k}" style="--wide:{number(drawing.width)}px">{to_svg(drawing, "light")}</div>'


def picture_rules(groups: Sequence[Group], dark: bool) -> str:
    """CSS for the pictures, each within its own element: waves of two wirings have other colours."""
    plans = [(k, g.plan) for k, g in enumerate(groups) if g.plan is not None]
    return "".join(f".pic{k}{{{style_rules(_drawing(plan).waves, dark)}}}" for k, plan in plans)
