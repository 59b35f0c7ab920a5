"""What notebooks show of plans and programs: whole HTML that minds its own business on a page of others."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from test_view import HOSTILE, backprop, depth1, depth2, make, mlp
from torch import nn

import reclra_compile as rc
from reclra_compile.ir import Plan
from reclra_compile.view.notebook import MOST_REGIONS, to_notebook

VOID = frozenset({"br", "meta", "input", "img", "hr", "link"})
ALLOWED = frozenset(
    {"div", "style", "svg", "title", "rect", "g", "path", "polygon", "circle", "text", "table", "tbody", "tr", "th",
     "td", "details", "summary", "p", "code"}
)  # fmt: skip


class Reader(HTMLParser):
    """Elements that are open, those that were seen, and the attributes of all."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


def scope(html: str) -> str:
    found = re.match(r'<div class="(reclra-[0-9a-f]{8})">', html)
    assert found
    return found[1]


@pytest.mark.parametrize("plan", [depth1(4), depth2(9), make("none", mlp(2), [])])
def test_html_is_whole_and_has_no_ids_and_no_script(plan: Plan) -> None:
    html = plan._repr_html_()
    found = read(html)
    assert found.seen <= ALLOWED
    names = {name for name, _ in found.attributes}
    assert "id" not in names and not any(n.startswith("on") or "href" in n or n == "src" for n in names)
    svg = html[html.index("<svg ") : html.index("</svg>") + 6]
    ET.fromstring(svg)
    for r in plan.regions:
        assert f'data-region="{r.name}"' in svg
    assert f"<td>{plan.name}</td>" in html


def test_styles_are_for_the_output_alone() -> None:
    html = depth2(9)._repr_html_()
    css = html.split("<style>")[1].split("</style>")[0].replace("@media (prefers-color-scheme:dark){", "")
    selectors = [s for rule in re.findall(r"([^{}]+)\{", css) for s in rule.split(",")]
    assert len(selectors) > 100
    assert all(f".{scope(html)}" in s for s in selectors)
    for page in ('[data-jp-theme-light="false"]', "body.vscode-dark", '[data-jp-theme-light="true"]'):
        assert f"{page} .{scope(html)} .w1 .line" in css


def test_two_outputs_on_one_page_share_a_style_only_where_it_is_the_same() -> None:
    few, same, many = depth1(4), replace(depth1(4), name="other"), backprop(9)
    assert scope(to_notebook(few)) == scope(to_notebook(same)) != scope(to_notebook(many))
    page = to_notebook(few) + to_notebook(many) + to_notebook(few)
    assert "id" not in {name for name, _ in read(page).attributes}
    styles = re.findall(r"<style>(.*?)</style>", page)
    assert styles[0] == styles[2] != styles[1]


def test_hostile_names_are_text() -> None:
    regions = [replace(r, name=HOSTILE + r.name, op=HOSTILE) for r in mlp(3)]
    links = [(regions[2].name, r.name) for r in regions[:2]]
    plan = replace(make(HOSTILE, regions, links), model=HOSTILE)
    found = read(plan._repr_html_())
    assert found.seen <= ALLOWED and not any(name.startswith("on") for name, _ in found.attributes)
    assert any("<script>alert(1)</script>" in text for text in found.text)


def test_a_large_plan_is_a_table_with_a_hint() -> None:
    html = depth1(500)._repr_html_()
    assert len(html) < 30_000 and "<svg" not in html and "write_picture" in html and "500" in html
    assert "<svg" in depth1(MOST_REGIONS)._repr_html_()
    read(html)


def test_a_wide_picture_scrolls_before_it_is_too_small_to_read() -> None:
    html = depth1(12)._repr_html_()
    found = re.search(r'<div style="overflow-x:auto"><svg style="min-width:(\d+)px;max-width:100%', html)
    wide = re.search(r'width="(\d+)', html)
    assert found and wide and int(found[1]) == pytest.approx(0.7 * int(wide[1]), abs=1) and int(found[1]) > 1000


def test_programs_show_themselves() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    program: Any = rc.compile(model, torch.zeros(4, 6), wiring="depth1")
    html = program._repr_html_()
    read(html)
    learned = sum(p.numel() for p in program.synapse_parameters())
    assert f'<th scope="row">learned synapses</th><td>{learned}</td>' in html
