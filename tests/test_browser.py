"""The page of a plan in a real browser: what keys and clicks do, and that nothing is fetched."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import test_view as plans
from synthetic import chain

from reclra_compile.ir import Device, Plan
from reclra_compile.machine import Machine
from reclra_compile.view import html, layout
from reclra_compile.view.html import to_html
from reclra_compile.view.layers import layered
from reclra_compile.view.layout import links_of
from reclra_compile.view.recorded import Recorded, Span, of_simulation
from reclra_compile.view.route import Router, Spacing, Wire

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'reclra-compile[browser]'")
Open = Callable[..., Any]
WAIT = 20_000  # milliseconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as p:
        found = found or p.chromium.executable_path
        if not Path(found).exists():
            pytest.skip("no browser: install chromium, or run `playwright install chromium`")
        running = p.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=60_000)
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens pages, and checks in the end that they fetched nothing and that no script failed."""
    contexts, wrong = [], []

    def open_page(content: str, **more: Any) -> Any:
        file = tmp_path / f"page{len(contexts)}.html"
        file.write_text(content, encoding="utf-8")
        context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce", **more)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("dialog", lambda d: (wrong.append("a dialog opened"), d.dismiss()))
        page.on("request", lambda r: wrong.append(r.url) if r.url != file.as_uri() and r.url[:5] != "blob:" else None)
        page.goto(file.as_uri())
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def blocky() -> Plan:
    """A model of two blocks of two layers each, whose layers hear the head."""
    names = ["stem", "a.0", "a.1", "b.0", "b.1", "head"]
    regions = [plans.region(n, f"z.{names[i - 1]}" if i else "x0") for i, n in enumerate(names)]
    return plans.make("blocky", regions, [("head", n) for n in ("b.1", "b.0", "a.1", "stem")] + [("b.0", "a.0")])


def timed() -> tuple[Plan, Recorded]:
    """A plan of four devices, and a step that took twice as long as predicted."""
    p = chain(8).on(Machine(devices="h100:4", microbatches=4))
    spans = [Span(s.task, s.microbatch, s.device, 2 * s.start_us, 2 * s.end_us) for s in of_simulation(p).spans]
    return p, Recorded(tuple(d.name for d in p.devices), tuple(spans), "measured")


def keys(page: Any, selector: str) -> set[str]:
    """The keys of the shapes that a selector finds."""
    found: list[str] = page.eval_on_selector_all(f"svg {selector}", "all => all.map((e) => e.dataset.key)")
    return {k for k in found if k}


def region_key(plan: Plan, *names: str) -> set[str]:
    return {f"r{i}" for i, r in enumerate(plan.regions) if r.name in names}


def test_waves_step_and_play(opened: Open) -> None:
    p = plans.depth2()
    page = opened(to_html(p))
    told = page.locator("#told")
    assert not keys(page, ".off")
    page.keyboard.press("ArrowRight")
    assert "Forward pass" in told.inner_text() and len(keys(page, ".region.off")) == 9
    assert keys(page, ".now") == set()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert told.inner_text() == "Wave 1 of 2: fc2, fc5, fc8 get their errors from fc9."
    assert keys(page, ".region.now") == region_key(p, *p.waves[1])
    assert keys(page, ".region.off") == region_key(p, *p.waves[2])
    assert len(keys(page, ".arc.now")) == 3
    assert page.get_attribute("#wave", "aria-valuetext") == "wave 1 of 2"
    page.keyboard.press("ArrowLeft")
    assert told.inner_text() == "Wave 0 of 2: fc9 gets its error from the loss."
    page.keyboard.press("a")
    assert not keys(page, ".off") and page.get_attribute("#all", "aria-pressed") == "true"
    page.clock.install()
    page.keyboard.press(" ")
    assert page.inner_text("#play") == "Pause" and "Forward pass" in told.inner_text()
    for wave in range(3):
        page.clock.run_for(1200)
        assert f"Wave {wave} of 2" in told.inner_text()
    page.clock.run_for(1200)
    assert page.inner_text("#play") == "Play" and page.locator("#next").is_disabled()


def test_blocks_fold_and_pathways_follow(opened: Open) -> None:
    p = blocky()
    page = opened(to_html(p))
    assert keys(page, ".region") == {f"r{i}" for i in range(6)} and keys(page, ".name") == {"b0", "b1"}
    assert page.locator("svg .arc").count() == 5
    page.locator('svg .name[data-key="b1"] .toggle').click()
    assert keys(page, ".region") == region_key(p, "stem", "a.0", "a.1", "head") and keys(page, ".block") == {"b1"}
    # head → b.1 and head → b.0 are one line now, and b.0 → a.0 starts at the block
    assert page.locator("svg .arc").count() == 4 and page.locator("svg .arc.many text").text_content() == "×2"
    assert page.evaluate(ENDS) == []
    page.keyboard.press("Tab")
    page.locator('svg .block[data-key="b1"]').focus()
    page.keyboard.press("o")
    assert page.locator("svg .arc").count() == 5
    assert page.evaluate("document.activeElement.dataset.key") == "b1", "the focus stays on the block"
    page.keyboard.press("o")
    assert keys(page, ".block") == {"b1"}
    page.click("#fold")
    assert keys(page, ".block") == {"b0", "b1"} and len(keys(page, ".region")) == 2
    page.locator('svg .block[data-key="b0"]').dblclick(position={"x": 20, "y": 30})
    assert keys(page, ".block") == {"b1"}
    page.click("#open")
    assert len(keys(page, ".region")) == 6
    page.locator('svg .name[data-key="b0"] text').click()
    panel = page.locator("#panel")
    assert "pathways inside" in panel.inner_text() and panel.locator("h2").inner_text() == "a"
    panel.get_by_role("button", name="Fold the block").click()
    assert keys(page, ".block") == {"b0"} and panel.get_by_role("button", name="Open the block").is_visible()


def test_a_click_tells_all_about_a_region_or_a_pathway(opened: Open) -> None:
    p, _ = timed()
    page = opened(to_html(p))
    page.locator('svg .region[data-key="r2"]').click()
    panel = page.locator("#panel")
    facts = dict(zip(panel.locator("dt").all_inner_texts(), panel.locator("dd").all_inner_texts(), strict=True))
    assert panel.locator("h2").inner_text() == "r2"
    assert facts["parameters"] == "64" and facts["shape"].startswith("8 ") and facts["target rule"].startswith("lra")
    assert facts["device"] == p.devices[p.placement.of("r2")].name
    assert "FLOP" in facts["forward"] and "forward" in facts["time of a microbatch"]
    assert page.get_attribute('svg [data-key="r2"]', "aria-pressed") == "true"
    panel.get_by_role("button", name="r7->r2").click()
    facts = dict(zip(panel.locator("dt").all_inner_texts(), panel.locator("dd").all_inner_texts(), strict=True))
    assert (facts["from"], facts["to"], facts["kernel"], facts["update"]) == ("r7", "r2", "dense", "fixed")
    assert {"synapses", "application", "synapse update"} <= set(facts)
    assert keys(page, ".arc.pinned") == {f"p{[q.name for q in p.pathways].index('r7->r2')}"}
    page.keyboard.press("Escape")
    assert panel.locator("h2").inner_text() == "Details"
    # a click on the line itself
    box = page.locator('svg .arc[data-key="p0"] .fill').bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert panel.locator("h2").inner_text() == p.pathways[0].name


def test_search_marks_counts_and_jumps(opened: Open) -> None:
    p = blocky()
    page = opened(to_html(p))
    page.click("#fold")
    page.keyboard.press("/")
    page.keyboard.type("b.1")
    assert page.inner_text("#found") == "3 of 11", "b.1, head>b.1, and head, which reads it"
    assert keys(page, ".region.hitting, .block.hitting") == {"b1"} | region_key(p, "head")
    assert "r0" in keys(page, ".dim") and page.locator("tr[data-row]:visible").count() == 3
    page.keyboard.press("Enter")
    assert page.inner_text("#found") == "1 of 3" and page.inner_text("#panel h2") == "b.1"
    assert keys(page, ".block") == {"b0"}, "its block is open"
    page.keyboard.press("Shift+Enter")
    assert page.inner_text("#found") == "3 of 3"
    page.keyboard.press("Escape")
    assert page.inner_text("#found") == "" and not keys(page, ".dim, .hitting")
    page.fill("#search", "nothing like it")
    assert page.inner_text("#found") == "none" and page.locator("#after").is_disabled()


def test_two_wirings_are_linked(opened: Open) -> None:
    a, b = plans.depth1(6), plans.depth2(6, 2)
    page = opened(to_html(a, beside=b))
    page.locator('#stage1 [data-key="r3"]').click()
    assert keys(page, ".region.pinned") == {"r3"} and page.locator("svg .region.pinned").count() == 2
    head = page.locator("#panel .pair tr").first.locator("th").all_inner_texts()
    assert head == ["depth 1", "depth 2"] and page.locator("#panel .pair .differs").count() >= 1
    assert "depth 1: errors arrive by" in page.inner_text("#panel")
    page.locator("#panel").get_by_role("button", name="fc6>fc4").click()
    assert page.locator("#stage0 .arc.pinned").count() == 1 and page.inner_text("#panel .kind") == "error pathway"
    page.keyboard.press("Escape")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert [page.locator(f"#stage{i} .region.now").count() for i in (0, 1)] == [5, len(b.waves[1])]
    rows = page.locator("#tables table").first.locator("tbody tr").all_inner_texts()
    assert any(r.split("\t")[:3] == ["waves", "2", "3"] for r in rows)
    assert any(r.startswith("error synapses") and r.endswith("equal") for r in rows)


def test_devices_have_lanes(opened: Open) -> None:
    p, _ = timed()
    page = opened(to_html(p))
    page.keyboard.press("2")
    assert page.locator("#view-devices .lane").count() == 4 and page.locator("#view-graph").is_hidden()
    first = page.locator(".lane").first
    mine = [r for r, d in p.placement.regions if d == 0]
    assert first.locator(".regions button").all_inner_texts() == mine
    tasks = [t for t in p.tasks if t.device == 0 and t.kind != "X"]
    assert first.locator(".tasks button").count() == len(tasks)
    assert "busy" in first.locator("p").inner_text()
    first.locator(".tasks button").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.tasks button')[1]")
    first.locator(".regions button").first.click()
    assert page.locator("#view-graph").is_visible() and page.inner_text("#panel h2") == mine[0]


def test_timelines_zoom_explain_and_are_saved(opened: Open) -> None:
    p, step = timed()
    page = opened(to_html(p, timeline=step), accept_downloads=True)
    page.click("#tab-timeline")
    canvas, told = page.locator("#canvas"), page.locator("#view-timeline .told")
    whole = float(canvas.get_attribute("data-span"))
    assert whole == pytest.approx(step.end_us)
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert "predicted" in told.inner_text() and "F r0, microbatch 0: 0 µs" in told.inner_text()
    assert "measured:" in told.inner_text(), "what it is beside"
    page.keyboard.press("ArrowDown")
    assert ": → cuda:1 z.r1" in told.inner_text(), "the link from the device"
    page.keyboard.press("ArrowDown")
    assert ", measured" in told.inner_text()
    page.keyboard.press("+")
    assert float(canvas.get_attribute("data-span")) < 0.7 * whole
    page.keyboard.press("0")
    assert float(canvas.get_attribute("data-span")) == whole
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 134, box["y"] + 14)
    assert "microbatch 0" in page.inner_text(".tip") and "µs" in page.inner_text(".tip")
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"Number(document.getElementById('canvas').dataset.span) < {whole * 0.9}")
    seen = canvas.get_attribute("data-from")
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 14, steps=3)
    page.mouse.up()
    assert canvas.get_attribute("data-from") != seen
    assert "2.00" in page.inner_text("#view-timeline table"), "measured ÷ predicted"
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save Perfetto trace").click()
    events = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))["traceEvents"]
    assert sum(e["ph"] == "X" for e in events) == 2 * len(step.spans)
    page.locator("#canvas").focus()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Show in the graph").click()
    assert page.inner_text("#panel h2") == p.tasks[0].subject


def test_the_pointer_and_the_keys_of_a_timeline(opened: Open) -> None:
    p, step = timed()
    page = opened(to_html(p, timeline=step))
    page.keyboard.press("3")
    assert page.evaluate("document.activeElement.id") == "canvas", "its keys work at once"
    canvas, tip = page.locator("#canvas"), page.locator(".tip")
    box = canvas.bounding_box()
    low = box["y"] + box["height"] - 26 - 22 / 2  # the lowest lane, above the axis
    for x in range(140, 1200, 20):
        page.mouse.move(box["x"] + x, low)
        if tip.is_visible():
            break
    about, frame = tip.bounding_box(), page.locator(".canvas").bounding_box()
    assert about["y"] + about["height"] <= min(low, frame["y"] + frame["height"]), "the tip is above the pointer"
    assert page.evaluate("(b => b.scrollHeight - b.clientHeight)(document.querySelector('.canvas'))") <= 0
    whole = float(canvas.get_attribute("data-span"))
    page.mouse.wheel(0, -600)
    page.wait_for_function(f"Number(document.getElementById('canvas').dataset.span) < {whole * 0.9}")
    # a drag that is let go outside ends there
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + box["height"] + 90, steps=3)
    page.mouse.up()
    seen = canvas.get_attribute("data-from")
    page.mouse.move(box["x"] + 300, box["y"] + 30, steps=3)
    assert canvas.get_attribute("data-from") == seen
    canvas.focus()
    for _ in range(30):
        page.keyboard.press("+")
    page.wait_for_function(f"Number(document.getElementById('canvas').dataset.span) < {whole / 10_000}")
    page.wait_for_timeout(100)
    marks = page.get_attribute("#canvas", "data-ticks").split("|")
    assert len(marks) > 2 and len(set(marks)) == len(marks), "marks can be told apart"
    page.keyboard.press("1")
    before = page.get_attribute("#stage0 svg", "viewBox")
    page.keyboard.press("+")
    assert page.get_attribute("#stage0 svg", "viewBox") != before


def test_messages_are_counted_for_each_microbatch(opened: Open) -> None:
    p, _ = timed()
    page = opened(to_html(p))
    page.keyboard.press("2")
    cells = page.locator("#view-devices td").all_inner_texts()
    posts = sum(t.kind == "P" for t in p.tasks)
    assert sum(int(c.rpartition(" in ")[2]) for c in cells if " in " in c) == 4 * posts
    many = chain(20).on(Machine(devices="h100:17", microbatches=2))
    page = opened(to_html(many))
    page.keyboard.press("2")
    assert f"in {2 * sum(t.kind == 'P' for t in many.tasks)} messages" in page.inner_text("#view-devices")
    assert "up to 16 devices" in page.inner_text("#view-devices") and not page.locator("#view-devices td").count()


@pytest.mark.slow
def test_a_double_click_opens_once_and_a_search_without_hits_says_so(opened: Open) -> None:
    page = opened(to_html(blocky()))
    page.click("#fold")
    page.locator('svg .block[data-key="b0"] .toggle').dblclick()
    assert keys(page, ".block") == {"b1"} and not page.locator("svg .pinned").count()
    page.fill("#search", "nothing like it")
    assert page.locator("tr.none:visible").count() == 2
    page.fill("#search", "head")
    assert page.locator("tr.none:visible").count() == 0
    page.fill("#search", "")
    page.locator("#wave").focus()
    page.keyboard.press("ArrowLeft")
    assert "Wave 2 of 2" in page.inner_text("#told"), "from all waves back to the last one"


@pytest.mark.slow
def test_regions_cut_in_another_way_are_found(opened: Open) -> None:
    fine = blocky()
    parts = [("stem", ("stem",)), ("a", ("a.0", "a.1")), ("b", ("b.0", "b.1")), ("head", ("head",))]
    regions = [
        replace(plans.region(n, f"z.{parts[k - 1][0]}" if k else "x0"), parameters=tuple(f"{i}.weight" for i in inside))
        for k, (n, inside) in enumerate(parts)
    ]
    coarse = plans.make("coarse", regions, [("head", n) for n in ("b", "a", "stem")])
    page = opened(to_html(fine, beside=coarse))
    page.locator('#stage0 .region[data-key="r1"]').click()
    assert page.get_attribute("#stage1 .region.pinned", "data-key") == "r1"
    assert page.locator("#panel .pair th").all_inner_texts()[:2] == ["blocky: a.0", "coarse: a"]


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


#: boxes that overlap, and the keys of lines that do not begin and end on the rims of boxes or run through one
ENDS = """() => {
  const box = (e) => { const b = e.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height]; };
  const boxes = [...document.querySelectorAll('svg .body')].map(box), wrong = [];
  const rim = ([x, y]) => boxes.some(([a, b, c, d]) => x > a - 1 && x < c + 1 && y > b - 1 && y < d + 1
    && Math.min(Math.abs(x - a), Math.abs(x - c), Math.abs(y - b), Math.abs(y - d)) < 1);
  boxes.forEach(([a, b, c, d], i) => boxes.slice(i + 1).forEach(([p, q, r, s]) => {
    if (a < r && p < c && b < s && q < d) wrong.push(`boxes ${i}`);
  }));
  for (const g of document.querySelectorAll('svg .arc')) {
    const numbers = g.querySelector('.line').getAttribute('d').match(/-?[\\d.]+/g).map(Number);
    const tip = g.querySelector('polygon').getAttribute('points').split(' ')[0].split(',').map(Number);
    if (!rim(numbers.slice(0, 2)) || !rim(tip)) wrong.push(`ends of ${g.dataset.key}`);
    const points = [];
    for (let i = 0; i < numbers.length; i += 2) points.push([numbers[i], numbers[i + 1]]);
    for (let i = 1; i < points.length; i++) {
      const [x, y] = points[i - 1], [u, v] = points[i];
      if (boxes.some(([a, b, c, d]) => Math.max(x, u) > a + 1 && Math.min(x, u) < c - 1
        && Math.max(y, v) > b + 1 && Math.min(y, v) < d - 1)) wrong.push(`${g.dataset.key} crosses a box`);
    }
  }
  return wrong;
}"""


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
