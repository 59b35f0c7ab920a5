"""A report as one self-contained web page, which fetches nothing. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

from reclra_compile.report.angles import angles_svg
from reclra_compile.report.command import commands_of
from reclra_compile.report.curves import geometry, panel_svg, panels_of
from reclra_compile.report.document import environments_of
from reclra_compile.report.heat import colour_rules, heat_svg, key_svg, scale_of
from reclra_compile.report.picture import picture, picture_rules
from reclra_compile.report.summary import Report
from reclra_compile.report.tables import environment_table, headline, results, settings_table
from reclra_compile.view.label import xml
from reclra_compile.view.palette import DARK, LIGHT, wave_colours
from reclra_compile.view.safe import json_text, policy

DASHES = ("none", "7 4", "2 3", "9 3 2 3")
#: plans with more text than this are cut
PLAN = 200_000


def to_html(report: Report) -> str:
    """The page."""
    script = _asset("page.js")
    title = f"{report.model} × {', '.join(g.label for g in report.groups)}"
    sections = (_curves(report), _heat(report), _angles(report), _pictures(report), _settings(report), _repeat(report))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy(script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{xml(title)}: report</title>
<style>
{_variables(report)}
{_asset("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header>
<div><h1>{xml(title)}</h1>{headline(report)}</div>
<button type="button" id="theme" aria-label="switch between light and dark">Light / dark</button>
</header>
<main id="main">
{results(report)}
{_notes(report.notes)}
{"".join(sections)}
</main>
<script type="application/json" id="data">{_data(report)}</script>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files("reclra_compile.report").joinpath(name).read_text("utf-8")


def _variables(report: Report) -> str:
    """Colours as CSS variables and rules, for a light and a dark page, by the system's wish or the button's."""
    count = len(report.groups)

    def block(dark: bool) -> str:
        t, colours = DARK if dark else LIGHT, wave_colours(count + 1, dark)[1:]
        line, focus, soft = ("#2b343e", "#6cb6ff", "#1b232c") if dark else ("#dde2e7", "#0b6bcb", "#f4f6f8")
        own = "".join(f"--c{k}:{c};" for k, c in enumerate(colours))
        return f"--ground:{t.ground};--ink:{t.ink};--faint:{t.faint};--box:{t.box};--line:{line};--soft:{soft};" \
               f"--focus:{focus};--lines:{min(count, 2)};{own}"  # fmt: skip

    def rules(dark: bool) -> str:
        return colour_rules(dark) + picture_rules(report.groups, dark)

    dark = block(True) + rules(True)
    each = "".join(f".c{k}{{--c:var(--c{k});--dash:{DASHES[k % len(DASHES)]}}}" for k in range(count))
    hidden = "".join(f'.hide{k} [data-wiring="{k}"]{{display:none}}' for k in range(count))
    return (
        f":root{{{block(False)}}}\n{rules(False)}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{{dark}}}}}\n{each}{hidden}"
    )


def _notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{xml(note)}</li>" for note in notes)
    return f'<ul class="notes" aria-label="notes">{items}</ul>' if items else ""


def _section(name: str, title: str, about: str, body: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{title}</h2>\n' \
           f"{f'<p>{about}</p>' if about else ''}\n{body}\n</section>\n"  # fmt: skip


def _legend(report: Report) -> str:
    """The wirings; each is a button that hides and shows it."""
    buttons = "".join(
        f'<button type="button" class="c{k}" data-toggle="{k}" aria-pressed="true"><i></i>{xml(g.label)}</button>'
        for k, g in enumerate(report.groups)
    )
    return f'<div class="legend" role="group" aria-label="wirings that are shown">{buttons}</div>'


def _curves(report: Report) -> str:
    panels = panels_of(report)
    several = any(len(g.runs) > 1 for g in report.groups)
    about = "Lines are means over seeds, bands their standard deviation, thin lines single seeds." if several else ""
    figures = "".join(
        f'<figure><h3>{xml(p.title)}{xml(f" ({p.unit.strip()})" if p.unit else "")}</h3>\n{panel_svg(p)}\n'
        f'<figcaption aria-live="polite">&nbsp;</figcaption></figure>\n'
        for p in panels
    )
    return _section("curves", "Curves", about, f'{_legend(report)}<div class="panels">{figures}</div>')


def _heat(report: Report) -> str:
    shown = [g for g in report.groups if g.heat is not None]
    heats = [g.heat for g in report.groups if g.heat is not None]
    if not heats:
        return ""
    scale = scale_of(heats)
    figures = "".join(
        f'<figure class="wide" data-wiring="{report.groups.index(g)}"><h3>{xml(g.label)}</h3>'
        f'<div class="scroll" tabindex="0">{heat_svg(h, scale, g.label)}</div></figure>\n'
        for g, h in zip(shown, heats, strict=True)
    )
    about = ("Each region’s term of D(Θ) after each epoch: how far its activity is from its target. Rows are regions, "
             "from the model’s input to its output; those without a target have none.")  # fmt: skip
    return _section("discrepancy", "Discrepancy by region", about, f"{key_svg(scale)}{figures}")


def _angles(report: Report) -> str:
    if not any(g.angles for g in report.groups):
        return ""
    about = (f"The angle between each region’s update and the gradient of backprop on the same batches: "
             f"{xml(report.aligned)}. A ring is before training, a dot after; below 90° a small step lowers the loss.")
    drawn = f'<figure class="wide"><div class="scroll" tabindex="0">{angles_svg(report.groups)}</div></figure>'
    return _section("alignment", "Alignment with backprop", about, _legend(report) + drawn)


def _pictures(report: Report) -> str:
    figures = []
    for k, group in enumerate(report.groups):
        if group.plan is None:
            continue
        text = str(group.plan)
        more = "" if len(text) <= PLAN else f"\n# … {len(text) - PLAN:,} more characters are in plan.txt"
        figures.append(
            f'<figure class="wide" data-wiring="{k}"><div class="scroll picture" tabindex="0">{picture(k, group)}</div>'
            f"<details><summary>The plan of {xml(group.label)} as text</summary><pre tabindex=\"0\">"
            f"{xml(text[:PLAN] + more)}</pre></details></figure>\n"
        )  # fmt: skip
    return _section("wiring", "Wiring", "", "".join(figures)) if figures else ""


def _settings(report: Report) -> str:
    settings = settings_table(report)
    environment = environment_table(environments_of(report))
    parts = (_section("settings", "Settings", "", settings) if settings else "",
             _section("environment", "Environment", "", environment) if environment else "")  # fmt: skip
    return f'<div class="side">{"".join(parts)}</div>\n' if any(parts) else ""


def _repeat(report: Report) -> str:
    commands = commands_of(report.runs)
    if not commands:
        return ""
    blocks = "".join(
        f'<div class="command"><pre tabindex="0"><code id="command{k}">{xml(text)}</code></pre>'
        f'<button type="button" data-copy="command{k}">Copy</button></div>\n'
        for k, text in enumerate(commands)
    )
    kept = any("--run-dir" in text for text in commands)
    about = "In the folder that it was given in. " if commands else ""
    about += "Give another --run-dir: one that holds a run is refused." if kept else ""
    return _section("repeat", "Repeat it", about, blocks)


def _data(report: Report) -> str:
    """What the script reads."""
    return json_text({"panels": [geometry(p) for p in panels_of(report)]})
