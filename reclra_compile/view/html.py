"""A plan as one self-contained web page, which fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources

from reclra_compile.ir import Pathway, Plan, Region
from reclra_compile.view.drawing import Drawing
from reclra_compile.view.facts import drawable, pathway_facts, region_facts, shape_text, wave_of
from reclra_compile.view.label import amount, count, number, xml
from reclra_compile.view.layout import layout
from reclra_compile.view.palette import DARK, LIGHT, wave_colours
from reclra_compile.view.recorded import Recorded
from reclra_compile.view.svg import graph_svg


def to_html(plan: Plan, *, beside: Plan | None = None, timeline: Recorded | None = None) -> str:
    """The plan as a page: its error graph to explore, and tables of its regions and pathways."""
    if timeline is not None:
        timeline.check(plan)
    drawing = layout(plan)
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # the policy lets this script run and nothing else, so that a name can never become code
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    subtitle = drawing.heading[-1].text
    _, _, w, h = drawing.graph
    flat = f' flat" style="--aspect:{number(w / h)}' if w > 2.4 * h else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{xml(plan.name)}: error graph</title>
<style>
{_variables(drawing.waves)}
{_asset("page.css")}</style>
</head>
<body>
<a class="skip" href="#tables">Skip to the tables</a>
<header>
<div><h1>{xml(plan.name)}</h1><p>{xml(subtitle)}</p></div>
<button type="button" id="theme" aria-label="switch between light and dark">Light / dark</button>
</header>
<div class="bar">
<div class="group" role="group" aria-label="waves">
<button type="button" id="prev" aria-label="previous wave">◀</button>
<output id="wave" aria-live="polite">all waves</output>
<button type="button" id="next" aria-label="next wave">▶</button>
<button type="button" id="play">Play</button>
<button type="button" id="all">All</button>
<kbd>←</kbd><kbd>→</kbd>
</div>
<div class="group">
<input type="search" id="search" placeholder="Filter by name, kernel, …"
 aria-label="filter regions and pathways">
<kbd>/</kbd><span id="found" role="status"></span>
</div>
<div class="group" role="group" aria-label="zoom">
<button type="button" id="out" aria-label="zoom out">−</button>
<button type="button" id="fit">Fit</button>
<button type="button" id="in" aria-label="zoom in">+</button>
</div>
</div>
{_legend(drawing)}
<main class="view{flat}">
<div class="stage" id="stage">
{graph_svg(drawing)}</div>
<aside id="panel" aria-label="details" aria-live="polite"></aside>
</main>
<div id="tables">
{_regions(plan)}
{_pathways(plan)}
</div>
<script type="application/json" id="plan">{_data(plan, drawing)}</script>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files("reclra_compile.view").joinpath(name).read_text("utf-8")


def _variables(waves: int) -> str:
    """The colours of the page as CSS variables, and the rules that give each wave its own."""

    def block(dark: bool) -> str:
        t, colours = DARK if dark else LIGHT, wave_colours(waves, dark)
        own = "".join(f"--c{k}:{c};" for k, c in enumerate(colours))
        line, focus = ("#2b343e", "#6cb6ff") if dark else ("#dde2e7", "#0b6bcb")
        return (
            f"--ground:{t.ground};--ink:{t.ink};--faint:{t.faint};--forward:{t.forward};--box:{t.box};"
            f"--rim:{t.rim};--tint:{t.tint};--line:{line};--focus:{focus};"
            f"--scale:{','.join(colours[1:]) or colours[0]};{own}"
        )

    each = "".join(f".w{k}{{--w:var(--c{k})}}" for k in range(max(waves, 1)))
    return (
        f":root{{{block(False)}}}\n@media (prefers-color-scheme:dark){{:root{{{block(True)}}}}}\n"
        f':root[data-theme="light"]{{{block(False)}}}\n:root[data-theme="dark"]{{{block(True)}}}\n{each}'
    )


def _legend(drawing: Drawing) -> str:
    items = []
    for k in drawing.legend:
        wave = f' class="w{k.wave}"' if k.kind == "arc" else ""
        items.append(f'<li{wave}><i class="{k.kind}"></i>{xml(k.text.text)}</li>')
    return f'<ul class="legend" aria-label="legend">{"".join(items)}</ul>'


def _data(plan: Plan, drawing: Drawing) -> str:
    """What the script needs, as JSON that cannot end its element."""
    waves, targets = wave_of(plan), {t.region: t for t in plan.targets}
    index = {r.name: i for i, r in enumerate(plan.regions)}
    devices = [d.name for d in plan.devices]
    place = dict(plan.placement.regions) if len(devices) > 1 else {}

    def device(region: Region) -> str:
        return devices[place[region.name]] if region.name in place else ""

    regions = [
        {"name": r.name, "wave": waves.get(r.name, -1),
         "facts": region_facts(r, targets.get(r.name), waves.get(r.name), device(r))}
        for r in plan.regions
    ]  # fmt: skip
    pathways = [
        {"name": p.name, "source": index[p.source], "target": index[p.target],
         "wave": waves.get(p.target, -1), "facts": pathway_facts(p, waves.get(p.target))}
        for p in drawable(plan)
    ]  # fmt: skip
    text = json.dumps(
        {"regions": regions, "pathways": pathways, "waves": len(plan.waves)},
        ensure_ascii=False, separators=(",", ":"),
    )  # fmt: skip
    for bad, safe in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(bad, safe)
    return text.encode("utf-8", "replace").decode()


def _table(
    caption: str, heads: tuple[str, ...], numeric: frozenset[int], rows: list[tuple[str, ...]], key: str
) -> str:
    def cell(tag: str, i: int, text: str, scope: str = "") -> str:
        style = ' class="n"' if i in numeric else ""
        return f"<{tag}{scope}{style}>{text}</{tag}>"

    head = "".join(cell("th", i, xml(h), ' scope="col"') for i, h in enumerate(heads))
    body = []
    for n, row in enumerate(rows):
        name = f'<button type="button">{xml(row[0])}</button>'
        cells = cell("th", 0, name, ' scope="row"') + "".join(
            cell("td", i, xml(text)) for i, text in enumerate(row[1:], 1)
        )
        body.append(f'<tr id="t{key}{n}">{cells}</tr>\n')
    return (
        f'<section class="scroll"><table><caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{''.join(body)}</tbody></table></section>"
    )


def _regions(plan: Plan) -> str:
    waves, targets = wave_of(plan), {t.region: t for t in plan.targets}

    def row(r: Region) -> tuple[str, ...]:
        t = targets.get(r.name)
        rule = "none" if t is None else t.rule + ("" if t.trainable else ", frozen")
        return (r.name, r.op, r.phi, ", ".join(r.inputs), shape_text(r.shape), count(r.parameter_count),
                amount(r.forward_flops, "FLOP"), rule, str(waves.get(r.name, "none")))  # fmt: skip

    heads = ("Region", "Operation", "φ", "Inputs", "Shape", "Parameters", "Forward", "Target rule", "Wave")
    return _table("Regions", heads, frozenset({5, 6, 8}), [row(r) for r in plan.regions], "r")


def _pathways(plan: Plan) -> str:
    waves = wave_of(plan)

    def row(p: Pathway) -> tuple[str, ...]:
        return (p.name, p.source, p.target, p.kernel, p.update, count(p.synapses),
                amount(p.flops, "FLOP"), str(waves.get(p.target, "none")))  # fmt: skip

    heads = ("Pathway", "From", "To", "Kernel", "Update", "Synapses", "Application", "Wave")
    return _table("Error pathways", heads, frozenset({5, 6, 7}), [row(p) for p in drawable(plan)], "p")
