"""The documentation site's own steps, called by mkdocs: pages that are generated, links that leave docs/, formulas.

Nothing of it needs a network, and nothing is written into docs/: generated pages exist only while the site is built.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gen_api
import gen_codes
import gen_links
import gen_math
import gen_schema
import gen_wirings
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[2]
#: pages that stand in the root of the repository
PROJECT = {"README.md": "project/readme.md", "CONTRIBUTING.md": "project/contributing.md",
           "CHANGELOG.md": "project/changelog.md"}  # fmt: skip


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Anchors of headings as repository viewers make them, so that a link leads to the same place in both."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and those of the root folder."""
    made: dict[str, str | bytes] = {}
    for name, place in PROJECT.items():
        made[place] = gen_links.moved((ROOT / name).read_text(encoding="utf-8"), name, place)
    made["reference/python.md"] = gen_api.page()
    made["reference/schema.md"] = gen_schema.page()
    made["reference/codes.md"] = gen_codes.page()
    made.update(gen_wirings.pages())
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    texts = [f.content_string for f in files.documentation_pages()]
    for source in gen_links.sources(texts, ROOT):
        listing = gen_links.listing(ROOT / source, source)
        files.append(File.generated(config, gen_links.place_of(source), content=listing))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files beside docs/ lead to their pages in the site."""
    return gen_links.inside(markdown, page.file.src_uri, ROOT, PROJECT)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas as MathML, which browsers draw themselves, and links to functions that lead to their lines."""
    return gen_links.to_lines(gen_math.formulas(html), ROOT)


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """What the search's worker runs, as a script of a page: files have no workers of their own (iframe-worker.js)."""
    site = Path(config.site_dir)
    (worker,) = (site / "assets/javascripts/workers").glob("search.*.min.js")
    shim = site / "assets/iframe-worker.js"
    source = re.sub(r"\n//# sourceMappingURL=.*", "", worker.read_text(encoding="utf-8"))
    text = shim.read_text(encoding="utf-8")
    shim.write_text(text.replace("/* the worker */ null", gen_links.script_string(source)), encoding="utf-8")
