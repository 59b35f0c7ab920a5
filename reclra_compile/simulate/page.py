"""A picture as a self-contained web page, which fetches nothing."""

from __future__ import annotations

from importlib import resources

from reclra_compile.view.label import xml
from reclra_compile.view.palette import DARK, LIGHT
from reclra_compile.view.safe import policy


def page(title: str, hint: str, rules: str, svg: str, data: str, script_name: str, below: str = "") -> str:
    """A page around `svg`: `data` (JSON of numbers) is what the script reads, `rules` colours the picture, and `below`
    (HTML) stands under it.
    """
    script = _asset(f"{script_name}.js")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy(script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{xml(title)}</title>
<style>
{_variables()}
{_asset("page.css")}{rules}</style>
</head>
<body>
<header>
<p id="about" aria-live="polite">{xml(hint)}</p>
<div class="group">
<button type="button" id="out" aria-label="zoom out">−</button>
<button type="button" id="fit">Fit</button>
<button type="button" id="in" aria-label="zoom in">+</button>
<button type="button" id="theme" aria-label="switch between light and dark">Light / dark</button>
</div>
</header>
<main class="stage" id="stage">
{svg}
</main>
{below}
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files("reclra_compile.simulate").joinpath(name).read_text("utf-8")


def _variables() -> str:
    def block(dark: bool) -> str:
        t = DARK if dark else LIGHT
        line, focus = ("#2b343e", "#6cb6ff") if dark else ("#dde2e7", "#0b6bcb")
        return f"--ground:{t.ground};--ink:{t.ink};--faint:{t.faint};--box:{t.box};--line:{line};--focus:{focus};"

    return (
        f":root{{{block(False)}}}\n@media (prefers-color-scheme:dark){{:root{{{block(True)}}}}}\n"
        f':root[data-theme="light"]{{{block(False)}}}\n:root[data-theme="dark"]{{{block(True)}}}'
    )
