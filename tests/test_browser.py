"""The page of a plan in a real browser: what keys, clicks and the pointer do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import test_view as plans
from browsing import Open
from pages import ENDS, blocky, keys, region_key, timed
from synthetic import chain

from reclra_compile.machine import Machine
from reclra_compile.view.html import to_html


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
