"""Pages in a real browser: how they are laid out, on any screen and at any size, and what cannot run."""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from typing import Any

import pytest
import test_view as plans
from browsing import Open
from pages import ENDS, blocky, keys, timed

from reclra_compile.ir import Device
from reclra_compile.view import html, layout
from reclra_compile.view.html import to_html
from reclra_compile.view.layers import layered
from reclra_compile.view.layout import links_of
from reclra_compile.view.route import Router, Spacing, Wire


def test_the_page_lays_out_as_the_still_pictures_do(opened: Open) -> None:
    """Columns, places and routes of the page's scripts and of the Python modules whose rules they follow."""
    page = opened(to_html(plans.depth1(3)))
    source = "".join(html._asset(f"page/{n}.js") for n in ("columns", "route"))
    call = "([count, links, nodes, wires, space]) => {" + source + """
      const routed = router(nodes, wires, space);
      return [layered(count, links), wires.map((_, i) => routed.points(i))];
    }"""
    for name in ("nine", "residual", "branches", "dense net", "tall dense net", "fan", "thirty", "forty", "long hub"):
        plan = plans.PLANS[name]()
        links, count = links_of(plan), len(plan.inputs) + len(plan.regions) + 1
        columns, places = layered(count, links)
        nodes = layout._nodes(columns, places, [(120.0, 60.0)] * count, True)
        index = {r.name: len(plan.inputs) + i for i, r in enumerate(plan.regions)}
        wires = [Wire(index[q.source], index[q.target], 1) for q in plan.pathways]
        wires += [Wire(a, b, -1) for a, b in links if columns[b] - columns[a] > 1]
        router = Router(nodes, wires, Spacing(44.0))
        space = {"channel": 44, "port": 13, "track": 9, "lane": 13, "firstLane": 24, "bundle": 14}
        (found, rows), lines = page.evaluate(
            call, [count, links, [asdict(n) for n in nodes], [asdict(w) for w in wires], space]
        )
        assert found == columns and rows == pytest.approx(places, abs=0.002), name
        for i, line in enumerate(lines):
            still = [v for point in router.points(i) for v in point]
            assert [v for point in line for v in point] == pytest.approx(still, abs=0.01), name


def test_predictions_without_rates_are_in_flops(opened: Open) -> None:
    p, step = timed()
    p = replace(p, devices=tuple(Device(d.name) for d in p.devices))
    page = opened(to_html(p, timeline=step))
    page.keyboard.press("3")
    whole = float(page.get_attribute("#canvas", "data-span"))
    assert whole == pytest.approx(step.end_us), "one scale for both"
    page.focus("#canvas")
    page.keyboard.press("ArrowRight")
    told = page.inner_text("#view-timeline .told")
    assert "FLOPs), predicted" in told and "µs" in told.partition("measured: ")[2]
    assert "drawn to one length" in page.inner_text("#view-timeline .hint >> nth=0")


def test_colours_and_direction_follow_the_system(opened: Open) -> None:
    page = opened(to_html(blocky()), color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert dark != light
    page.wait_for_selector("svg.across")
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_selector("svg:not(.across)")  # a narrow page is drawn upward
    found = []
    for _ in range(3):
        page.click("#theme")
        found.append((page.inner_text("#theme").rpartition(" ")[2], page.evaluate(ground)))
    assert found == [("light", light), ("dark", dark), ("system", light)]
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == light and page.locator("#bar").is_hidden()


def test_everything_is_reached_by_keys(opened: Open) -> None:
    p, step = timed()
    page = opened(to_html(p, timeline=step))
    about = """(() => {
      const e = document.activeElement, label = e.getAttribute('aria-label') || e.textContent;
      return [e.id || e.dataset.key || label.slice(0, 20), label, getComputedStyle(e).outlineStyle, e.tagName];
    })()"""
    seen = {}
    for _ in range(60):
        page.keyboard.press("Tab")
        name, label, outline, tag = page.evaluate(about)
        if name in seen or tag == "BODY":
            break
        seen[name] = (label.strip(), outline, tag)
    assert {"help", "theme", "tab-graph", "play", "wave", "prev", "all", "search", "in", "fit", "out"} <= set(seen)
    assert all(label for label, _, _ in seen.values()), "everything has a name"
    assert all(outline == "solid" or tag == "g" for _, outline, tag in seen.values()), "the focus shows"
    # into the graph: one tab stop, arrows inside
    page.evaluate("document.querySelector('#stage0 [tabindex=\"0\"]').focus()")
    for key in ("ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.dataset.key") == "r5"
    page.keyboard.press("Enter")
    assert page.inner_text("#panel h2") == "r5"
    page.keyboard.press("ArrowRight")
    assert "Forward pass" in page.inner_text("#told"), "left and right stay with the waves"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#panel') !== null")
    page.keyboard.press("Enter")
    assert page.inner_text("#panel .kind") == "error pathway"
    page.locator("#tab-graph").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-devices" and page.locator("#view-devices").is_visible()
    page.keyboard.press("3")
    assert page.locator("#canvas").is_visible()
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#keys").is_hidden()
    page.keyboard.press("1")
    before = page.get_attribute("#stage0 svg", "viewBox")
    page.keyboard.press("+")
    assert page.get_attribute("#stage0 svg", "viewBox") != before


def test_the_view_follows_wheel_and_drag(opened: Open) -> None:
    page = opened(to_html(blocky()), has_touch=True)

    def box() -> list[float]:
        return [float(v) for v in page.get_attribute("#stage0 svg", "viewBox").split()]

    stage = page.locator("#stage0").bounding_box()
    start = box()
    page.mouse.move(stage["x"] + 40, stage["y"] + 30)
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"document.querySelector('#stage0 svg').viewBox.baseVal.width < {start[2] - 1}")
    near = box()
    assert near[0] + 40 / stage["width"] * near[2] == pytest.approx(start[0] + 40 / stage["width"] * start[2], abs=0.5)
    page.mouse.down()
    page.mouse.move(stage["x"] + 140, stage["y"] + 60, steps=4)
    page.mouse.up()
    assert box()[0] < near[0] and box()[1] < near[1] and page.inner_text("#panel h2") == "Details"
    seen = box()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert box() != seen, "all of it is printed"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert box() == pytest.approx(seen, abs=0.5)
    page.click("#fit")
    assert box() == pytest.approx(start, abs=0.5)
    # two fingers that go apart
    touch = page.context.new_cdp_session(page)
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80)):
        points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert start[2] / box()[2] == pytest.approx(2, rel=0.1) and page.inner_text("#panel h2") == "Details"


def test_five_hundred_regions(opened: Open) -> None:
    p = plans.depth2(500, 8)
    content = to_html(p)
    assert len(content.encode()) < 3_000_000
    page = opened(content)
    assert len(keys(page, ".block")) == 20 and not keys(page, ".region"), "it starts folded"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "Wave 0 of 2" in page.inner_text("#told")
    page.keyboard.press("a")
    page.locator('svg [data-key="b19"] .toggle').click()
    assert len(keys(page, ".region")) == 25
    page.keyboard.press("/")
    page.keyboard.type("fc371")
    page.keyboard.press("Enter")
    assert page.inner_text("#panel h2") == "fc371" and len(keys(page, ".region")) == 50
    page.keyboard.press("Escape")
    page.click("#open")
    assert len(keys(page, ".region")) == 500 and page.locator("svg .arc").count() == 499
    page.keyboard.press("ArrowLeft")
    assert len(keys(page, ".region.now")) == len(p.waves[2])
    page.click("#in")
    page.click("#fold")
    assert len(keys(page, ".block")) == 20


def test_nothing_is_wider_than_the_page(opened: Open) -> None:
    p, step = timed()
    longest = replace(p, name="a" * 90, model="m" * 60)
    wide = "document.documentElement.scrollWidth - innerWidth"
    page, both = opened(to_html(longest, timeline=step)), opened(to_html(plans.depth1(9), beside=plans.depth2()))
    for width in (1440, 768, 360):
        for shown in (page, both):
            shown.set_viewport_size({"width": width, "height": 800})
        for view in ("graph", "devices", "timeline"):
            page.click(f"#tab-{view}")
            assert page.evaluate(wide) <= 0, (width, view)
        assert both.evaluate(wide) <= 0, width


def test_names_that_would_be_code_are_inert(opened: Open) -> None:
    page = opened(to_html(plans.hostile(), beside=plans.hostile()))
    page.locator('#stage0 [data-key="r1"]').click()
    page.fill("#search", "script")
    page.keyboard.press("Enter")
    assert page.locator("img").count() == 0 and page.locator("script").count() == 2
    assert page.locator("#panel h2").inner_text().startswith("</script><script>alert(1)")


@pytest.mark.parametrize("name", [n for n in plans.PLANS if n not in ("200", "long hub")])
@pytest.mark.slow
def test_drawings_keep_apart_and_join_boxes(opened: Open, name: str) -> None:
    check_folds(opened(to_html(plans.PLANS[name]())), random.Random(name))


def test_nested_drawings_keep_apart_and_join_boxes(opened: Open) -> None:
    """Whatever is folded: boxes do not overlap, and lines end at boxes and cross none."""
    rng = random.Random(1)
    regions = [plans.region("stem", "x0")]
    links: list[tuple[str, str]] = []
    for block in ("h.0", "h.1", "h.2", "tail"):
        before = regions[-1].outputs[0]
        regions.append(plans.region(f"{block}.attn.qkv", before))
        regions.append(plans.region(f"{block}.attn.out", f"z.{block}.attn.qkv", before))
        regions.append(plans.region(f"{block}.mlp.a", f"z.{block}.attn.out"))
        regions.append(plans.region(f"{block}.mlp.b", f"z.{block}.mlp.a", f"z.{block}.attn.out"))
        links += [("head", f"{block}.{end}") for end in ("mlp.b", "attn.out")]
        links += [(f"{block}.mlp.b", f"{block}.{inner}") for inner in ("mlp.a", "attn.qkv")]
    regions.append(plans.region("head", regions[-1].outputs[0]))
    check_folds(opened(to_html(plans.make("nested", regions, links))), rng)


def check_folds(page: Any, rng: random.Random) -> None:
    assert page.evaluate(ENDS) == []
    for _ in range(12):
        marks = page.locator("svg .toggle").count()
        if not marks:
            break
        page.locator("svg .toggle").nth(rng.randrange(marks)).dispatch_event("pointerup")
        assert page.evaluate(ENDS) == []
