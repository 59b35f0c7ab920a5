"""The documentation site: every page is in its menu, what is generated is complete, and it builds without a warning.

What is quick is checked always. The build itself, and the site in a browser, take longer and are for `make check-all`.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from conftest import ROOT

import reclra_compile as rc
from reclra_compile.explain.entries import groups
from reclra_compile.rules.catalogue import GRANULARITIES, INITS, KERNELS, TARGETS, UPDATES
from reclra_compile.spec.load import json_schema, shipped

DOCS = ROOT / "docs"
EQUATION = re.compile(r"^## (E\d+|Waves): .*?\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"\[`([\w.]+)`\]\((\.\./[\w./]+\.py)\)")


def configuration() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return found


def in_menu(part: object) -> list[str]:
    """All pages of the menu, in order."""
    if isinstance(part, str):
        return [part]
    parts = part.values() if isinstance(part, dict) else part
    return [page for inner in parts for page in in_menu(inner)]  # type: ignore[attr-defined]


def generator(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of docs/gen, which are found by mkdocs alone otherwise."""
    monkeypatch.syspath_prepend(str(DOCS / "gen"))
    return importlib.import_module(name)


# The menu


def test_every_page_is_in_the_menu_once() -> None:
    menu = in_menu(configuration()["nav"])
    missing = sorted({str(f.relative_to(DOCS)) for f in DOCS.rglob("*.md")} - set(menu))
    assert not missing, f"add {', '.join('docs/' + m for m in missing)} to `nav:` in mkdocs.yml"
    assert len(menu) == len(set(menu)), "a page is twice in `nav:` of mkdocs.yml"
    made = ("reference/", "project/")
    lost = sorted(m for m in menu if not m.startswith(made) and not (DOCS / m).is_file())
    assert not lost, f"`nav:` in mkdocs.yml names pages that are not there: {', '.join(lost)}"


def test_the_menu_has_the_four_kinds_of_documentation_and_the_results() -> None:
    assert [next(iter(part)) for part in configuration()["nav"]] == [
        "Home", "Tutorial", "How-to", "Reference", "Explanation", "Results", "Project",
    ]  # fmt: skip


def test_nothing_is_asked_of_a_network() -> None:
    config = configuration()
    assert config["theme"]["font"] is False
    assert not any(str(v).startswith("http") for key in ("extra_css", "extra_javascript") for v in config.get(key, ()))
    assert [p for p in config["extra"]["polyfills"] if "iframe-worker" in p and "//" not in p]


# What is generated


def test_the_reference_has_every_public_name(monkeypatch: pytest.MonkeyPatch) -> None:
    api = generator("gen_api", monkeypatch)
    listed = [name for names in api.names().values() for name in names]
    assert sorted(listed) == sorted(n for n in rc.__all__ if not n.startswith("__"))
    assert not [name for name in listed if not (getattr(rc, name).__doc__ or "").strip()], "a public name says nothing"
    blocks = re.findall(r"^::: (\S+)$", api.page(), re.MULTILINE)
    assert [b.rpartition(".")[2] for b in blocks] == listed
    assert all(hasattr(importlib.import_module(b.rpartition(".")[0]), b.rpartition(".")[2]) for b in blocks)


def test_every_public_method_of_a_program_says_what_it_does() -> None:
    methods = {n: v for n, v in vars(rc.Program).items() if not n.startswith("_")}
    functions = {n: getattr(v, "fget", v) for n, v in methods.items() if callable(v) or isinstance(v, property)}
    assert len(functions) > 15
    assert not [name for name, f in functions.items() if not (f.__doc__ or "").strip()]


def test_the_schema_page_has_every_key_with_its_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    page = generator("gen_schema", monkeypatch).page()
    schema = json_schema()
    for name, part in {"": schema, **schema["$defs"]}.items():
        for key in part["properties"]:
            rows = re.findall(rf"^\| (?:\*\*)?`{key}`(?:\*\*)? \| (.+) \| (.*) \| (.+) \|$", page, re.MULTILINE)
            assert rows and all(value.strip() and meaning.strip() for value, _, meaning in rows), f"{name}: {key}"
    for words in (GRANULARITIES, KERNELS, INITS, TARGETS.known, UPDATES.known):
        assert not [w for w in words if f"\n| `{w}` | " not in page]


def test_a_part_that_the_schema_page_does_not_know_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    schema_page = generator("gen_schema", monkeypatch)
    monkeypatch.delitem(schema_page.PARTS, "Selector")
    with pytest.raises(ValueError, match="no place for Selector"):
        schema_page.page()


def test_the_page_of_codes_has_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    text = generator("gen_codes", monkeypatch).page()
    pages = "".join(f.read_text(encoding="utf-8") for f in DOCS.glob("*.md"))
    wanted = re.findall(r"^\| ([A-Z]\d{3}) \|", pages, re.MULTILINE)
    assert len(wanted) > 100
    found = re.findall(r"^#### .* \{#([A-Z]\d{3})\}$", text, re.MULTILINE)
    assert set(wanted) <= set(found) and len(found) == len(set(found)) == sum(len(g.entries) for g in groups())


@pytest.mark.parametrize(
    ("text", "page", "expected"),
    [
        ("[R](../README.md#install)", "tutorial.md", "[R](project/readme.md#install)"),
        ("[`f`](../reclra_compile/errors.py)", "a.md", "[`f`](source/reclra_compile/errors.py.md)"),
        ("[w](../docs/wiring.md)", "a.md", "[w](../docs/wiring.md)"),
        ("[w](wiring.md#keys)", "a.md", "[w](wiring.md#keys)"),
        ("[x](../nowhere.py)", "a.md", "[x](../nowhere.py)"),
        ("```python\n[x](../README.md)\n```", "a.md", "[x](../README.md)"),
        ("[R](../../README.md)", "project/readme.md", "[R](readme.md)"),
    ],
)
def test_links_that_leave_docs_lead_into_the_site(
    text: str, page: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = {"README.md": "project/readme.md"}
    assert expected in generator("gen_links", monkeypatch).inside(text, page, ROOT, project)


def test_a_link_to_a_function_leads_to_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    to_lines = generator("gen_links", monkeypatch).to_lines
    lines = (ROOT / "reclra_compile" / "errors.py").read_text(encoding="utf-8").splitlines()
    number = next(k for k, line in enumerate(lines, 1) if line.startswith("def nearest"))
    plain = '<a href="../source/reclra_compile/errors.py.html"><code>errors.{}</code></a>'
    assert f'errors.py.html#__codelineno-0-{number}"><code>' in to_lines(plain.format("nearest"), ROOT)
    assert to_lines(plain.format("nowhere"), ROOT) == plain.format("nowhere")


# Paper to code


def test_every_equation_names_code_and_a_test_that_exist() -> None:
    text = (DOCS / "equations.md").read_text(encoding="utf-8")
    sections: dict[str, str] = dict(EQUATION.findall(text))
    assert list(sections) == [*(f"E{k}" for k in range(1, 14)), "Waves"]
    for name, body in sections.items():
        found = NAMED.findall(body)
        kinds = {"test" if label.startswith("tests.test_") else "code" for label, _ in found}
        assert "$$" in body and "- Paper: " in body and kinds == {"test", "code"}, f"{name} is not complete"
        for label, link in found:
            path = (DOCS / link).resolve()
            assert path.is_file(), f"{name}: no file {link}"
            module = str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removeprefix("reclra_compile.")
            where, _, last = label.rpartition(".")
            assert where == module, f"{name}: {label} is not in {link}"
            assert last in defined(path), f"{name}: {link} defines no {last}"


def test_how_it_works_and_paper_to_code_have_the_same_equations() -> None:
    text = (DOCS / "how-it-works.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (E\d+) \|", text, re.MULTILINE) == [f"E{k}" for k in range(1, 14)]


def defined(path: Path) -> set[str]:
    """The functions and classes that a file defines."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)}


# The built site


class _Loads(HTMLParser):
    """What a page loads by itself: scripts, styles, pictures, frames; and the texts of its formulas."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.formulas: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "math":
            self.formulas.append(given.get("alttext") or "")
        if tag in ("script", "img", "iframe", "source", "video", "audio", "object"):
            self.loads.append(given.get("src") or given.get("data") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next", "alternate"):
            self.loads.append(given.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it, where a warning is an error."""
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    pytest.importorskip("mkdocstrings")
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    path = sys.path.copy()
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    try:
        build(config)
    finally:
        config.plugins.on_shutdown()
        sys.path[:] = path
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_the_site_builds_without_a_warning_and_needs_no_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    menu = {site / re.sub(r"\.md$", ".html", page) for page in in_menu(configuration()["nav"])}
    assert menu <= set(pages)
    for page in pages:
        found = _Loads()
        found.feed(page.read_text(encoding="utf-8"))
        assert not [x for x in found.loads if re.match(r"(\w+:)?//", x)], page
        assert not [x for x in found.loads if x and not x.startswith("data:")
                    and not (page.parent / x.partition("?")[0]).exists() and page.name != "404.html"], page  # fmt: skip
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style
    assert "/* the worker */ null" not in (site / "assets" / "iframe-worker.js").read_text(encoding="utf-8")
    assert not list(site.rglob("*.py")), "the generators are not part of the site"


@pytest.mark.slow
def test_formulas_wirings_and_names_are_in_the_built_pages(site: Path) -> None:
    equations = _Loads()
    text = (site / "equations.html").read_text(encoding="utf-8")
    equations.feed(text)
    assert len(equations.formulas) > 40 and all(equations.formulas) and "arithmatex" not in text
    assert re.search(r'href="source/reclra_compile/runtime/region.py.html#__codelineno-0-\d+"', text)
    wirings = (site / "reference" / "wirings.html").read_text(encoding="utf-8")
    for name in shipped():
        assert f'id="{name}"' in wirings and (site / "reference" / "wirings" / f"{name}.svg").stat().st_size > 3000
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in rc.__all__:
        assert name.startswith("__") or re.search(rf'id="reclra_compile\.[\w.]*{name}"', python), name
    assert 'id="reclra_compile.runtime.program.Program.step"' in python


@pytest.mark.slow
def test_search_works_in_pages_that_are_opened_as_files(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
    with playwright.sync_playwright() as p:
        browser = launched(p)
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("f")
        page.keyboard.type("kolen pollack")
        page.wait_for_selector(".md-search-result__item", timeout=20_000)
        assert "kolen" in page.inner_text(".md-search-result__list").lower()
        assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
        browser.close()


def launched(p: Any) -> Any:
    """A headless chromium: the system's, or playwright's own; skips where there is none."""
    here = next((f for f in ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
                 if Path(f).exists()), None)  # fmt: skip
    try:
        return p.chromium.launch(executable_path=here, args=["--no-sandbox"])
    except Exception as error:
        pytest.skip(f"no chromium to run: {str(error).splitlines()[0]}")
