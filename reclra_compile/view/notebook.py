"""A plan as a piece of HTML for a notebook: its picture, in the notebook's colours, and what it comes to.

The piece shares its page with others, so that it has no ids and no script, and its styles are for its own class alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from reclra_compile.ir import Plan
from reclra_compile.view.label import amount, count, plural, xml
from reclra_compile.view.layout import layout
from reclra_compile.view.palette import DARK, LIGHT
from reclra_compile.view.svg import style_rules, to_svg

MOST_REGIONS = 100  #: a notebook keeps its outputs, and a larger picture is of little use in one
_SQUEEZED = 0.7  #: of its natural size, the smallest picture
_SHOWN = 12  #: regions of a wave that are named
#: what notebooks and documentation sites put on the page when they are dark or light, whatever the system is
_DARK = ('[data-jp-theme-light="false"] ', "body.vscode-dark ", '[data-theme="dark"] ',
         '[data-md-color-scheme="slate"] ')  # fmt: skip
_LIGHT = ('[data-jp-theme-light="true"] ', "body.vscode-light ", '[data-theme="light"] ',
          '[data-md-color-scheme="default"] ')  # fmt: skip


def to_notebook(plan: Plan, more: Sequence[tuple[str, str]] = ()) -> str:
    """The plan for `_repr_html_`: the picture of up to 100 regions, a summary that `more` joins, and the waves."""
    few = len(plan.regions) <= MOST_REGIONS
    waves = len(plan.waves)
    css = _css(waves)
    name = f"reclra-{hashlib.sha256(css.encode()).hexdigest()[:8]}"  # equal styles, equal name
    picture = ""
    if few:
        drawing = layout(plan)
        # squeezed further its text cannot be read: then it scrolls
        least = f"min-width:{_SQUEEZED * drawing.width:.0f}px"
        style = f'<svg style="{least};max-width:100%;height:auto" '
        drawn = to_svg(drawing, "light").replace("<svg ", style, 1)
        picture = f'<div style="overflow-x:auto">{drawn}</div>\n'
    hint = "" if few else (
        f"<p>{count(len(plan.regions))} regions are too many to draw here: "
        f"<code>reclra_compile.write_picture(plan, &quot;plan.html&quot;)</code> writes a page.</p>\n"
    )  # fmt: skip
    return (
        f'<div class="{name}">\n<style>{css.replace("SCOPE", name)}</style>\n{picture}{hint}'
        f"{_table([*_facts(plan), *more])}{_waves(plan)}</div>\n"
    )


def _facts(plan: Plan) -> list[tuple[str, str]]:
    synapses = sum(p.synapses for p in plan.pathways)
    facts = [
        ("wiring", plan.name), ("model", plan.model), ("regions", count(len(plan.regions))),
        ("error pathways", count(len(plan.pathways))), ("error synapses", count(synapses)),
        ("parameters", count(sum(r.parameter_count for r in plan.regions))), ("batch", count(plan.batch)),
    ]  # fmt: skip
    if plan.cost.backprop_flops:
        facts.append(("step", f"{amount(plan.cost.flops, 'FLOP')}, {plan.cost.ratio:.3f} of backprop"))
    if len(plan.devices) > 1:
        parts = plan.schedule.microbatches
        facts.append(("devices", f"{len(plan.devices)}, {count(parts)} microbatch{'es' * (parts > 1)}"))
    if plan.warnings:
        facts.append(("warnings", count(len(plan.warnings))))
    return facts


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f'<tr><th scope="row">{xml(k)}</th><td>{xml(v)}</td></tr>\n' for k, v in rows)
    return f"<table><tbody>\n{cells}</tbody></table>\n"


def _waves(plan: Plan) -> str:
    """The regions that get their error at once, behind a title that opens."""
    rows = []
    for k, names in enumerate(plan.waves):
        more = f" … {count(len(names) - _SHOWN)} more" if len(names) > _SHOWN else ""
        rows.append((f"wave {k}", ", ".join(names[:_SHOWN]) + more))
    return f"<details><summary>{plural(len(rows), 'wave')}</summary>{_table(rows)}</details>\n" if rows else ""


def _css(waves: int) -> str:
    """The rules of the class SCOPE: light; dark where the system is, but as the notebook is where it says so."""
    return (
        f"{_scoped(waves, False, ('',))}@media (prefers-color-scheme:dark){{{_scoped(waves, True, ('',))}}}"
        f"{_scoped(waves, True, _DARK)}{_scoped(waves, False, _LIGHT)}"
    )


def _scoped(waves: int, dark: bool, pages: Sequence[str]) -> str:
    t = DARK if dark else LIGHT
    own = (
        f"{{background:{t.ground};color:{t.ink};padding:6px 8px;overflow-x:auto;"
        f"font:12px sans-serif}}"
        f"table{{border-collapse:collapse;margin:4px 0;font:inherit}}"
        f"th,td{{text-align:left;vertical-align:top;padding:1px 12px 1px 0;border:0;background:none;color:{t.ink}}}"
        f"th{{font-weight:400;color:{t.faint}}}tr{{background:none}}summary,p,code{{color:{t.ink};background:none}}"
    )

    def scoped(found: re.Match[str]) -> str:
        each = (s.strip() for s in found[1].split(","))
        return ",".join(f"{page}.SCOPE {s}".strip() for s in each for page in pages) + "{"

    return re.sub(r"([^{}]*)\{", scoped, own + style_rules(waves, dark))
