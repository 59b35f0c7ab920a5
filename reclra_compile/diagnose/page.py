"""A diagnosis as one self-contained web page: the picture, the warnings and the numbers. It fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence

from reclra_compile.diagnose.facts import Diagnosis, Finding
from reclra_compile.diagnose.plot import page_style, page_svg
from reclra_compile.diagnose.words import COLUMNS, grouped, row
from reclra_compile.view.label import xml
from reclra_compile.view.palette import DARK, LIGHT

_CSS = """
* { box-sizing: border-box; }
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 22px clamp(14px, 2.4vw, 36px) 48px; max-width: 1240px; background: var(--ground);
  color: var(--ink); font: 14px/1.5 Inter, system-ui, "Helvetica Neue", Helvetica, Arial, "DejaVu Sans", sans-serif; }
svg { display: block; width: 100%; height: auto; }
h2 { font-size: 16px; margin: 26px 0 8px; }
ul { list-style: none; margin: 0; padding: 0; }
li { border-left: 3px solid #c98a00; padding: 2px 12px; margin: 0 0 10px; overflow-wrap: anywhere; }
li span { color: var(--faint); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: right; padding: 4px 12px; border-bottom: 1px solid var(--rim); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { color: var(--faint); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
"""


def to_html(diagnosis: Diagnosis, found: Sequence[Finding]) -> str:
    """The page; hovering over a point of the picture shows its number."""
    plan = diagnosis.plan
    title = xml(f"{plan.model} × {plan.name}: diagnosis")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_variables()}{_CSS}{page_style(len(plan.regions))}</style>
</head>
<body>
{page_svg(diagnosis)}
{_warnings(found)}
{_table(diagnosis)}
</body>
</html>
"""


def _variables() -> str:
    light, dark = (
        f":root{{--ground:{t.ground};--ink:{t.ink};--faint:{t.faint};--rim:{t.forward}55}}" for t in (LIGHT, DARK)
    )
    return f"{light}\n@media (prefers-color-scheme:dark){{{dark}}}"


def _warnings(found: Sequence[Finding]) -> str:
    items = "".join(
        f"<li><b>{g.code}</b> {xml(g.where)}{xml(g.message)}<br><span>try: {xml(g.suggestion)}</span></li>\n"
        for g in grouped(found)
    )
    return f"<h2>Warnings</h2>\n<ul>\n{items}</ul>" if items else "<h2>Warnings</h2>\n<p>none</p>"


def _table(d: Diagnosis) -> str:
    heads = "".join(f'<th scope="col">{xml(title)}</th>' for title, _ in COLUMNS)
    rows = "".join(f"<tr>{''.join(f'<td>{xml(cell)}</td>' for cell in row(facts))}</tr>\n" for facts in d.last.regions)
    return (
        f'<h2>Regions after step {d.last.step}</h2>\n<div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table></div>"
    )
