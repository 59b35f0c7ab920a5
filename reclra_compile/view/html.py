"""A plan as one self-contained web page, which fetches nothing."""

from __future__ import annotations

from importlib import resources

from reclra_compile.ir import Plan
from reclra_compile.view.captions import heading
from reclra_compile.view.data import plan_data
from reclra_compile.view.label import xml
from reclra_compile.view.palette import DARK, LIGHT, wave_colours
from reclra_compile.view.recorded import Recorded
from reclra_compile.view.safe import json_text, policy
from reclra_compile.view.tables import check_beside, difference_tables, names_of, pathway_table, region_table

#: the page's script, in the order in which its parts build on each other
_SCRIPTS = ("base", "columns", "route", "scene", "marks", "shapes", "stage", "pointer", "panel", "waves", "search",
            "lanes", "times", "bars", "timeline", "main")  # fmt: skip
_KEYS = (
    ("← →", "one wave back or on"), ("Space", "play the waves, or pause"), ("A", "all waves"),
    ("↑ ↓", "from region to region"), ("Enter", "select, or let go"), ("O", "open or fold a block"),
    ("/", "search; Enter goes to the next hit"), ("+ − 0", "zoom in, out, fit"),
    ("1 2 3", "graph, devices, timeline"), ("T", "system colours, light, dark"), ("Esc", "let go"),
    ("in the timeline", "arrows go from task to task, Shift with ← → moves"),
)  # fmt: skip


def to_html(plan: Plan, *, beside: Plan | None = None, timeline: Recorded | None = None) -> str:
    """The plan as a page: its graph to explore, wave by wave, its devices and times, and tables of all of it.

    `beside` is another wiring of the model, drawn beside it; `timeline` a step as it ran, shown under the predicted
    one. Raises UserError: V005 where the timeline is not measured, V006 where it is of another plan, V008 where
    `beside` is of another model.
    """
    if beside is not None:
        check_beside(plan, beside)
    if timeline is not None:
        timeline.check_measured()
        timeline.check(plan)
    plans = [plan] if beside is None else [plan, beside]
    script = '"use strict";\n(() => {\n' + "".join(_asset(f"page/{n}.js") for n in _SCRIPTS) + "})();\n"
    waves = max(len(p.waves) for p in plans)
    names = [plan.name] if beside is None else list(names_of(plan, beside))
    data = [plan_data(p, timeline if i == 0 else None) | {"name": names[i]} for i, p in enumerate(plans)]
    title = plan.name if beside is None else f"{names[0]} beside {names[1]}"
    about = heading(plan)[-1].text
    if beside is not None:
        about = f"{plan.model or 'model'} with two wirings; what differs stands in the tables below"
    views = [("graph", "Graph")]
    views += [("devices", "Devices")] * (len(plan.devices) > 1)
    views += [("timeline", "Timeline")] * ("predicted" in data[0] or "measured" in data[0])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy(script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{xml(title)}: error graph</title>
<style>
{_variables([len(p.waves) for p in plans])}
{_asset("page/page.css")}</style>
</head>
<body>
<a class="skip" href="#tables">Skip to the tables</a>
<header>
<div><h1>{xml(title)}</h1><p>{xml(about)}</p></div>
<div class="group"><button type="button" id="help" aria-haspopup="dialog">Keys</button>
<button type="button" id="theme">Colours: system</button></div>
</header>
{_tabs(views)}
<div class="bar" id="bar">
<div class="group" role="group" aria-label="waves">
<button type="button" id="play">Play</button>
<button type="button" id="prev" aria-label="one wave back">◀</button>
<input type="range" id="wave" min="-1" max="{max(waves - 1, 0)}" step="1" value="-1" aria-label="wave">
<button type="button" id="next" aria-label="one wave on">▶</button>
<button type="button" id="all" aria-pressed="true">All</button>
</div>
<div class="group" role="search">
<input type="search" id="search" placeholder="Search  /" aria-label="search regions and pathways" autocomplete="off">
<button type="button" id="before" aria-label="previous hit" disabled>↑</button>
<button type="button" id="after" aria-label="next hit" disabled>↓</button>
<span id="found" role="status"></span>
</div>
<div class="group" id="folding" role="group" aria-label="blocks">
<button type="button" id="open">Open all</button>
<button type="button" id="fold">Fold all</button>
</div>
<div class="group" role="group" aria-label="zoom">
<button type="button" id="out" aria-label="zoom out">−</button>
<button type="button" id="fit">Fit</button>
<button type="button" id="in" aria-label="zoom in">+</button>
</div>
</div>
<p class="told" id="told" aria-live="polite"></p>
<main>
<div class="view" id="view-graph" data-plans="{len(plans)}" {_role("graph", views)}>
<div class="stages">{"".join(_stage(i, n) for i, n in enumerate(names))}</div>
<aside id="panel" aria-label="details" aria-live="polite"></aside>
</div>
{"".join(f'<section class="other" id="view-{k}" hidden {_role(k, views)}></section>' for k, _ in views[1:])}
</main>
<div id="tables">
{_tables(plans, names)}</div>
<dialog id="keys" aria-label="keys"><h2>Keys</h2><dl>{
"".join(f"<div><dt><kbd>{xml(k)}</kbd></dt><dd>{xml(what)}</dd></div>" for k, what in _KEYS)
}</dl><form method="dialog"><button>Close</button></form></dialog>
<noscript>The drawing needs JavaScript; the tables do not.</noscript>
<script type="application/json" id="plan">{json_text(data)}</script>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files("reclra_compile.view").joinpath(name).read_text("utf-8")


def _tabs(views: list[tuple[str, str]]) -> str:
    if len(views) == 1:
        return ""
    tabs = "".join(
        f'<button type="button" role="tab" id="tab-{key}" aria-controls="view-{key}" '
        f'aria-selected="{"true" if key == "graph" else "false"}">{name}</button>'
        for key, name in views
    )
    return f'<div class="tabs" role="tablist" aria-label="views">{tabs}</div>'


def _role(key: str, views: list[tuple[str, str]]) -> str:
    return f'role="tabpanel" aria-labelledby="tab-{key}"' if len(views) > 1 else ""


def _stage(number: int, name: str) -> str:
    return (
        f'<figure class="of{number}"><figcaption><b>{xml(name)}</b>'
        f'<ul class="legend" id="legend{number}" aria-label="legend"></ul></figcaption>'
        f'<div class="stage" id="stage{number}" role="group" '
        f'aria-label="{xml(name)}: regions and error pathways; ↑ and ↓ go from region to region"></div>'
        "</figure>"
    )


def _tables(plans: list[Plan], names: list[str]) -> str:
    if len(plans) == 1:
        return region_table(plans[0]) + pathway_table(plans[0])
    found = difference_tables(plans[0], plans[1])
    for i, (plan, name) in enumerate(zip(plans, names, strict=True)):
        found += region_table(plan, i, f" of {name}") + pathway_table(plan, i, f" of {name}")
    return found


def _variables(waves: list[int]) -> str:
    """The colours of the page as CSS variables, and the rules that give each wave of each plan its own.

    A second plan has colours for its own number of waves: those of the longer one would be too near to each other.
    """

    def block(dark: bool) -> str:
        t = DARK if dark else LIGHT
        line, focus, hit = ("#2b343e", "#6cb6ff", "#f0c04a") if dark else ("#dde2e7", "#0b6bcb", "#c98a00")
        work = "".join(f"--k{k}:{c};" for k, c in enumerate(wave_colours(6, dark)))
        own = ""
        for i, count in enumerate(waves):
            colours = wave_colours(count, dark)
            own += "".join(f"--c{i}-{k}:{c};" for k, c in enumerate(colours))
            own += f"--scale{i}:{','.join(colours[1:]) or colours[0]};"
        return (
            f"--ground:{t.ground};--ink:{t.ink};--faint:{t.faint};--forward:{t.forward};--box:{t.box};"
            f"--rim:{t.rim};--tint:{t.tint};--line:{line};--focus:{focus};--hit:{hit};{work}{own}"
        )

    each = ":root{--scale:var(--scale0)}" + "".join(f".w{k}{{--w:var(--c0-{k})}}" for k in range(max(waves[0], 1)))
    for i, count in enumerate(waves[1:], 1):
        each += f".of{i}{{--scale:var(--scale{i})}}"
        each += "".join(f".of{i} .w{k},.of{i}.w{k}{{--w:var(--c{i}-{k})}}" for k in range(max(count, 1)))
    return (
        f":root{{{block(False)}}}\n@media (prefers-color-scheme:dark){{:root{{{block(True)}}}}}\n"
        f':root[data-theme="light"]{{{block(False)}}}\n:root[data-theme="dark"]{{{block(True)}}}\n'
        f"@media print{{:root,:root[data-theme]{{{block(False)}}}}}\n{each}"
    )
