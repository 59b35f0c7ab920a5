"""Pictures of plans: geometry of the drawing, and the SVG, HTML, DOT and PNG made from it."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from synthetic import chain

from reclra_compile.errors import UserError
from reclra_compile.ir import Cost, Device, Pathway, Placement, Plan, Region, Target
from reclra_compile.machine import Machine
from reclra_compile.view import draw, png
from reclra_compile.view.blocks import blocks
from reclra_compile.view.dot import to_dot
from reclra_compile.view.drawing import Box, Drawing, Point
from reclra_compile.view.html import to_html
from reclra_compile.view.label import amount, count, shorten, width
from reclra_compile.view.layers import layered
from reclra_compile.view.layout import layout
from reclra_compile.view.palette import wave_colours
from reclra_compile.view.recorded import Recorded, Span, of_simulation
from reclra_compile.view.svg import to_svg

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\\ {{}}\x00\x1b\u2028]]>"
Link = tuple[str, str] | tuple[str, str, str]


def region(
    name: str, *inputs: str, phi: str = "relu", shape: tuple[int, ...] = (512,), op: str = "linear"
) -> Region:
    return Region(
        name, op, phi, inputs, (f"z.{name}", f"z.{name}#1"), shape, (f"{name}.weight",), 262_656, 10**7, 10**7
    )


def make(name: str, regions: list[Region], links: Iterable[Link], frozen: str = "", **more: Any) -> Plan:
    """A plan with a pathway for each link (source, target[, kernel]) and waves that follow from them."""
    pathways = []
    for source, target, *kernel in links:
        kind = kernel[0] if kernel else "dense"
        update, synapses = ("tied", 0) if kind == "adjoint" else ("kolen_pollack", 262_144)
        pathways.append(
            Pathway(f"{source}>{target}", source, target, kind, update, synapses=synapses, flops=10**6)
        )
    waves, todo = {regions[-1].name: 0}, [regions[-1].name]
    for source in todo:
        for p in pathways:
            if p.source == source and p.target not in waves:
                waves[p.target] = waves[source] + 1
                todo.append(p.target)
    groups = [tuple(r for r in waves if waves[r] == k) for k in range(max(waves.values()) + 1)]
    targets = tuple(Target(r.name, "lra", 0.1, True, trainable=r.name != frozen) for r in regions)
    settings: dict[str, Any] = {
        "inputs": (("x0", (784,), "float32"),), "output": regions[-1].outputs[0],
        "cost": Cost(backprop_flops=100, forward_flops=30, weight_flops=30, error_flops=20),
    } | more  # fmt: skip
    return Plan(name=name, model="mlp", fingerprint="f", batch=128, regions=tuple(regions), targets=targets,
                pathways=tuple(pathways), waves=tuple(groups), tasks=(), **settings)  # fmt: skip


def mlp(n: int) -> list[Region]:
    return [region(f"fc{i}", f"z.fc{i - 1}" if i > 1 else "x0", phi="relu" if i < n else "identity")
            for i in range(1, n + 1)]  # fmt: skip


def depth1(n: int) -> Plan:
    return make("depth 1", mlp(n), [(f"fc{n}", f"fc{i}") for i in range(n - 1, 0, -1)], frozen="fc2")


def depth2(n: int = 9, g: int = 3) -> Plan:
    relays = [n, *range(n - 1, 0, -g)]
    links = [(n, r) for r in relays[1:]]
    links += [(min(r for r in relays if r > i), i) for i in range(n - 1, 0, -1) if i not in relays]
    return make("depth 2", mlp(n), [(f"fc{a}", f"fc{b}") for a, b in links])


def backprop(n: int) -> Plan:
    return make("backprop", mlp(n), [(f"fc{i + 1}", f"fc{i}", "adjoint") for i in range(n - 1, 0, -1)])


def residual() -> Plan:
    regions = [region("stem", "x0")]
    links: list[Link] = [("head", "stem")]
    for b in range(3):
        before = regions[-1].outputs[0]
        regions += [region(f"b{b}.fc1", before), region(f"b{b}.fc2", f"z.b{b}.fc1", before)]
        links += [("head", f"b{b}.fc2"), (f"b{b}.fc2", f"b{b}.fc1", "adjoint")]
    return make("residual", [*regions, region("head", regions[-1].outputs[0])], links)


def branches() -> Plan:
    regions = [region("stem", "x0", shape=(64, 16, 16), op="conv2d")]
    for name, depth in (("a", 1), ("b", 2), ("c", 3)):
        for i in range(depth):
            regions.append(region(f"{name}{i}", f"z.{name}{i - 1}" if i else "z.stem#1", op="conv2d"))
    regions += [
        region("merge", "z.a0", "z.b1", "z.c2"),
        region("aux", "x1"),
        region("head", "z.merge", "z.aux#1"),
    ]
    pairs = "head>merge head>aux head>stem merge>a0 merge>b1 merge>c2 c2>c1 c2>c0 b1>b0 a0>b0"
    pairs += " b0>c1 b0>a0 aux>merge"
    links: list[Link] = [(a, b) for a, _, b in (pair.partition(">") for pair in pairs.split())]
    return make("branches", regions, links, inputs=(("x0", (3, 32, 32), "float32"), ("x1", (8,), "float32")))


def dense_net(n: int) -> Plan:
    regions = [region("fc1", "x0")]
    for i in range(2, n + 1):
        regions.append(region(f"fc{i}", *(f"z.fc{j}" for j in range(1, i))))
    return make(
        "dense net", regions, [(f"fc{b}", f"fc{a}") for a in range(1, n) for b in range(a + 1, n + 1)]
    )


def fan(n: int) -> Plan:
    regions = [region(f"b{i}", "x0") for i in range(n)]
    regions.append(region("sum", *(f"z.b{i}" for i in range(n))))
    return make("fan", regions, [("sum", f"b{i}") for i in range(n)])


def hostile() -> Plan:
    bad = [
        region(f"{HOSTILE}{i}", f"z.{HOSTILE}{i - 1}" if i else "x0", op=HOSTILE, phi=HOSTILE)
        for i in range(3)
    ]
    names = [r.name for r in bad]
    return make(HOSTILE, bad, [(names[2], names[1]), (names[1], names[0])])


PLANS: dict[str, Callable[[], Plan]] = {
    "one": lambda: make("one", mlp(1), []),
    "six": lambda: depth1(6),
    "nine": depth2,
    "residual": residual,
    "branches": branches,
    "dense net": lambda: dense_net(7),
    "tall dense net": lambda: dense_net(16),
    "fan": lambda: fan(5),
    "thirty": lambda: backprop(30),
    "forty": lambda: depth2(40, 4),
    "long hub": lambda: depth1(200),
    "200": lambda: depth2(200, 8),
}


@pytest.fixture(params=list(PLANS))
def plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]()


def overlap(a: Box, b: Box) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height


def crosses(a: Point, b: Point, box: Box, margin: float = 1.0) -> bool:
    """Whether an axis-parallel segment comes within `margin` of a box."""
    (x1, x2), (y1, y2) = sorted((a[0], b[0])), sorted((a[1], b[1]))
    return (x1 < box.x + box.width + margin and x2 > box.x - margin
            and y1 < box.y + box.height + margin and y2 > box.y - margin)  # fmt: skip


def touches(p: Point, box: Box) -> bool:
    """Whether a point lies on the rim of a box."""
    x, y = p[0] - box.x, p[1] - box.y
    inside = -0.02 <= x <= box.width + 0.02 and -0.02 <= y <= box.height + 0.02
    return inside and min(abs(x), abs(y), abs(x - box.width), abs(y - box.height)) < 0.02


def regions_of(d: Drawing) -> dict[str, Box]:
    return {b.name: b for b in d.boxes if b.kind == "region"}


def test_boxes_keep_apart_and_inside(plan: Plan) -> None:
    d = layout(plan)
    assert [b.name for b in d.boxes if b.kind == "region"] == [r.name for r in plan.regions]
    assert [b.kind for b in d.boxes].count("loss") == 1
    assert not [(a.name, b.name) for a, b in combinations(d.boxes, 2) if overlap(a, b)]
    x, y, w, h = d.graph
    for b in d.boxes:
        assert x - 0.1 <= b.x and b.x + b.width <= x + w + 0.1
        assert y - 0.1 <= b.y and b.y + b.height <= y + h + 0.1
    assert min(x, y) >= 0
    assert x + w <= d.width
    assert y + h <= d.height


def test_lines_join_their_boxes_and_cross_no_other(plan: Plan) -> None:
    d = layout(plan)
    boxes, named = list(d.boxes), regions_of(d)
    lines = [(a.points, named[a.source], named[a.target]) for a in d.arcs]
    lines += [(e.points, boxes[e.source], boxes[e.target]) for e in d.edges if not e.swing]
    for points, source, target in lines:
        assert touches(points[0], source) and touches(points[-1], target)
        for a, b in pairwise(points):
            assert min(abs(a[0] - b[0]), abs(a[1] - b[1])) < 0.02, "lines run along the axes"
            found = [
                box.name for box in boxes if box is not source and box is not target and crosses(a, b, box)
            ]
            assert not found
        for box in (source, target):
            # the line meets its own boxes at its ends only: it never runs over their labels
            inner = Box("", "", box.x + 1, box.y + 1, box.width - 2, box.height - 2, 0, False, (), "")
            assert not [1 for a, b in pairwise(points) if crosses(a, b, inner, 0)]
    for e in d.edges:
        if e.swing:
            assert touches(e.points[0], boxes[e.source]) and touches(e.points[1], boxes[e.target])


def test_text_fits_its_box(plan: Plan) -> None:
    for b in layout(plan).boxes:
        for t in b.texts:
            size = width(t.text, t.size, t.bold)
            left = t.x - size / 2 if t.anchor == "middle" else t.x
            assert b.x < left and left + size < b.x + b.width
            assert b.y + t.size * 0.7 < t.y < b.y + b.height - 2


@pytest.mark.parametrize("plan", [depth2(), depth1(12), depth2(40, 4)], ids=["nine", "twelve", "forty"])
def test_pathways_of_a_chain_nest(plan: Plan) -> None:
    """No two pathways of a chain cross or share a stretch, as in Figure 1 of the paper."""
    segments: list[tuple[int, Point, Point]] = []
    for i, arc in enumerate(layout(plan).arcs):
        segments += [(i, min(s), max(s)) for s in pairwise(arc.points)]
    for (i, a, b), (j, c, d) in combinations(segments, 2):
        if i != j:
            apart = a[0] > d[0] + 0.5 or c[0] > b[0] + 0.5 or max(a[1], b[1]) < min(c[1], d[1]) - 0.5
            assert apart or max(c[1], d[1]) < min(a[1], b[1]) - 0.5


def test_pathways_lie_opposite_the_skips() -> None:
    d = layout(residual())
    middle = regions_of(d)["stem"].y + 32
    assert d.across
    assert all(min(y for _, y in a.points) < middle for a in d.arcs)
    skips = [e for e in d.edges if not e.swing]
    assert len(skips) == 3
    assert all(min(y for _, y in e.points) > middle for e in skips)


def test_direction_follows_length() -> None:
    short, long = layout(depth2(9)), layout(depth2(40, 4))
    assert short.across and not long.across
    assert [b.x for b in short.boxes] == sorted(b.x for b in short.boxes)
    assert [b.y for b in long.boxes] == sorted((b.y for b in long.boxes), reverse=True)


def test_waves_colour_arcs_by_their_target() -> None:
    p = depth2()
    d = layout(p)
    assert p.waves == (("fc9",), ("fc8", "fc5", "fc2"), ("fc7", "fc6", "fc4", "fc3", "fc1"))
    waves = {name: k for k, group in enumerate(p.waves) for name in group}
    assert all(a.wave == waves[a.target] for a in d.arcs)
    assert d.seed is not None and (d.seed.target, d.seed.wave) == ("fc9", 0)
    assert [k.text.text for k in d.legend][:3] == [
        "wave 0: from the loss",
        "wave 1: 3 pathways",
        "wave 2: 5 pathways",
    ]
    assert "0.80× the FLOPs of backprop" in d.heading[1].text
    assert "9 regions" in d.heading[1].text and "8 error pathways" in d.heading[1].text


@pytest.mark.parametrize("dark", [False, True])
def test_wave_colours_differ(dark: bool) -> None:
    for n in (1, 2, 6, 7, 30):
        colours = wave_colours(n, dark)
        assert len(set(colours)) == n
        assert all(re.fullmatch("#[0-9a-f]{6}", c) for c in colours)


def test_regions_without_waves_and_frozen_ones() -> None:
    p = depth1(6)
    p = make("p", list(p.regions), [("fc6", "fc5")], frozen="fc5")
    d = layout(p)
    named = regions_of(d)
    assert named["fc5"].frozen and not named["fc4"].frozen
    assert (named["fc1"].wave, named["fc1"].badge) == (-1, None)
    assert "frozen" in [k.kind for k in d.legend]
    ET.fromstring(to_svg(d))


def test_a_late_input_stands_next_to_its_reader() -> None:
    columns, _ = layered(5, [(0, 1), (1, 2), (2, 3), (4, 3)])
    assert columns == [0, 1, 2, 3, 2]


def test_branches_are_straight_and_ordered() -> None:
    # 0 → 1 → 2 → 5, 0 → 3 → 4 → 5: each branch keeps its place
    _, places = layered(6, [(0, 1), (1, 2), (2, 5), (0, 3), (3, 4), (4, 5)])
    assert places[1] == places[2] and places[3] == places[4]
    assert places[0] == places[5] == (places[1] + places[3]) / 2


@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
def test_svg_is_well_formed_and_complete(plan: Plan, theme: str) -> None:
    root = ET.fromstring(to_svg(layout(plan), theme))
    regions = [g for g in root.iter(f"{SVG}g") if "data-region" in g.attrib]
    arcs = [g for g in root.iter(f"{SVG}g") if "data-pathway" in g.attrib]
    assert [g.attrib["data-region"] for g in regions] == [r.name for r in plan.regions]
    assert Counter(g.attrib["data-pathway"] for g in arcs) == Counter(p.name for p in plan.pathways)
    for g in (*regions, *arcs):
        title = g.find(f"{SVG}title")
        assert title is not None and title.text
        name = g.attrib.get("data-region") or g.attrib["data-pathway"]
        assert title.text.startswith(name)
        words = (
            ("shape", "parameters", "β 0.1")
            if "data-region" in g.attrib
            else ("kernel", "synapses", "update")
        )
        assert all(w in title.text for w in (*words, "FLOP", "wave"))


def test_svg_refuses_an_unknown_theme() -> None:
    with pytest.raises(ValueError, match="theme"):
        to_svg(layout(depth1(3)), "blue")


class Page(HTMLParser):
    """The parts of a page that the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def data(self) -> Any:
        return json.loads(next(t for t in self.texts["script"] if t.startswith("[")))


def test_html_is_complete(plan: Plan) -> None:
    page = Page(to_html(plan))
    (data,) = page.data()
    assert [r["name"] for r in data["regions"]] == [r.name for r in plan.regions]
    assert [p["name"] for p in data["pathways"]] == [p.name for p in plan.pathways]
    assert [data["regions"][p["source"]]["name"] for p in data["pathways"]] == [p.source for p in plan.pathways]
    facts = [dict(r["facts"]) for r in data["regions"]]
    assert all({"shape", "parameters", "target rule", "forward", "wave"} <= set(f) for f in facts)
    assert all({"kernel", "update", "synapses"} <= set(dict(p["facts"])) for p in data["pathways"])
    ids = [str(a["id"]) for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    # table rows and what they select are tied together by their keys
    rows = [str(a["data-row"]) for t, a in page.tags if t == "tr" and "data-row" in a]
    assert rows == [f"0:r{i}" for i in range(len(plan.regions))] + [f"0:p{i}" for i in range(len(plan.pathways))]
    names = set(page.texts["button"])
    assert {r.name for r in plan.regions} | {p.name for p in plan.pathways} <= names


@pytest.mark.parametrize("make_plan", [depth2, hostile])
def test_html_fetches_nothing(make_plan: Callable[[], Plan]) -> None:
    text = to_html(make_plan())
    page = Page(text)
    for _, attributes in page.tags:
        for key in ("src", "srcset", "data", "action", "poster", "background"):
            assert key not in attributes
        for key in ("href", "xlink:href"):
            assert (attributes.get(key) or "#").startswith("#")
        assert not [k for k in attributes if k.startswith("on")]
    assert "link" not in {t for t, _ in page.tags}
    assert set(re.findall(r"https?:[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|\bimport\(", text)
    policy = next(str(a["content"]) for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_html_shows_devices_where_there_are_several() -> None:
    p = make(
        "two", mlp(2), [("fc2", "fc1")], placement=Placement((("fc1", 0), ("fc2", 1))),
        devices=(Device("cuda:0"), Device("cuda:1")),
    )  # fmt: skip
    page = Page(to_html(p))
    facts = [dict(r["facts"])["device"] for r in page.data()[0]["regions"]]
    assert "tab-devices" in {a.get("id") for _, a in page.tags}
    assert facts == ["cuda:0", "cuda:1"]


def test_hostile_names_are_inert() -> None:
    p = hostile()
    page = Page(to_html(p))
    assert [t for t, _ in page.tags].count("script") == 2
    assert "img" not in {t for t, _ in page.tags}
    assert [r["name"] for r in page.data()[0]["regions"]] == [r.name for r in p.regions]
    root = ET.fromstring(to_svg(layout(p)))
    assert not list(root.iter(f"{SVG}script")) and not list(root.iter(f"{SVG}img"))
    assert len([g for g in root.iter() if "data-region" in g.attrib]) == 3
    strings = r'"(?:[^"\\]|\\.)*"'
    for line in to_dot(p).split("\n"):
        # outside its strings, a line of DOT holds nothing of a name
        assert "alert" not in re.sub(strings, "", line)


def test_dot_is_complete(plan: Plan) -> None:
    text = to_dot(plan)
    assert text.startswith("digraph ") and text.endswith("}\n")
    d = layout(plan)
    nodes = re.findall(r'^  n(\d+) \[label="(.*?)(?:\\n|")', text, re.M)
    assert [name for _, name in nodes] == [b.name for b in d.boxes]
    number = {name: i for i, name in nodes if name != "loss"}
    links = Counter(re.findall(r'^  n(\d+) -> n(\d+) \[id="(.*?)"', text, re.M))
    assert links == Counter((number[p.source], number[p.target], p.name) for p in plan.pathways)
    assert len(re.findall(r"^  n\d+ -> n\d+;$", text, re.M)) == len(d.edges)


def test_the_same_plan_gives_the_same_picture(plan: Plan) -> None:
    assert layout(plan) == layout(plan)
    assert to_html(plan) == to_html(plan)


def test_the_picture_does_not_depend_on_hash_order(tmp_path: Path) -> None:
    script = tmp_path / "draw.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_view import branches, to_html, to_dot\n"
        "import hashlib; text = to_html(branches()) + to_dot(branches())\n"
        "print(hashlib.sha256(text.encode()).hexdigest())\n"
    )
    here = Path(__file__).parent
    found = set()
    for seed in ("1", "2"):
        env = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(here.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [sys.executable, str(script), str(here)], env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


@pytest.mark.parametrize("n", [200, 500])
def test_large_plans_draw_fast(n: int) -> None:
    start = time.perf_counter()
    to_svg(layout(depth2(n, 8)))
    to_html(backprop(n))
    assert time.perf_counter() - start < 2 * n / 200


def test_shorten_keeps_both_ends() -> None:
    text = "features.12.residual.conv1"
    short = shorten(text, 80, 12)
    assert short.startswith("fea") and short.endswith("conv1") and width(short, 12) <= 80
    assert shorten(text, 1000, 12) == text
    assert shorten(text, 1, 12) == "…"


def test_numbers() -> None:
    assert (amount(0, "FLOP"), amount(67_108_864, "FLOP")) == ("0 FLOP", "67.1 MFLOP")
    assert [amount(n, "B") for n in (999_499, 999_999, 1.234e18)] == ["999 kB", "1 MB", "1234 PB"]
    assert count(1_234_567) == "1\u202f234\u202f567"


@pytest.fixture
def fonts() -> None:
    pytest.importorskip("resvg_py", reason="PNG needs the optional resvg_py")
    if not png._text_shows():
        pytest.skip("this machine has no sans-serif font")


@pytest.mark.usefixtures("fonts")
def test_png_shows_text() -> None:
    import resvg_py

    d = layout(depth1(6))
    content = png.to_png(d)
    assert content.startswith(b"\x89PNG")
    wide, high = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    assert (wide, high) == (2 * -(-d.width // 1), 2 * -(-d.height // 1))
    silent = re.sub(r"<text[^>]*>[^<]*</text>", "", to_svg(d, "light"))
    assert len(content) > 1.3 * len(bytes(resvg_py.svg_to_bytes(svg_string=silent, zoom=2)))


@pytest.mark.usefixtures("fonts")
def test_a_large_png_gets_a_smaller_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    d = layout(depth1(6))
    monkeypatch.setattr(png, "MOST_PIXELS", int(d.width * d.height * 5))
    assert int.from_bytes(png.to_png(d, scale=4)[16:20], "big") == 2 * -(-d.width // 1)


def test_png_without_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py", reason="PNG needs the optional resvg_py")
    monkeypatch.setattr(png, "_text_shows", lambda: False)
    with pytest.raises(UserError, match="V003") as e:
        png.to_png(layout(depth1(3)))
    assert "font" in str(e.value) and e.value.faults[0].fix


def test_missing_font_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    resvg_py = pytest.importorskip("resvg_py", reason="PNG needs the optional resvg_py")
    real = resvg_py.svg_to_bytes
    monkeypatch.setattr(resvg_py, "svg_to_bytes", lambda **given: real(**given, skip_system_fonts=True))
    assert not png._text_shows.__wrapped__()


def test_png_without_resvg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "resvg_py":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match="V001") as e:
        draw.write_picture(depth1(3), tmp_path / "a.png")
    assert e.value.faults[0].fix == "pip install 'reclra-compile[png]' or write .svg"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".html", ".svg", ".png", ".dot", ".SVG"])
def test_write_picture(tmp_path: Path, suffix: str, request: pytest.FixtureRequest) -> None:
    if suffix == ".png":
        request.getfixturevalue("fonts")
    file = tmp_path / f"graph{suffix}"
    file.write_text("old")
    draw.write_picture(depth2(), file)
    draw.write_picture(depth2(), str(file))
    starts = {".html": b"<!doctype html>", ".png": b"\x89PNG", ".dot": b"digraph"}
    assert file.read_bytes().startswith(starts.get(suffix, b"<svg"))
    assert list(tmp_path.iterdir()) == [file]
    mask = os.umask(0)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("name", ["graph.pdf", "graph", ".svg"])
def test_an_unknown_suffix_names_the_choices(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="V002") as e:
        draw.write_picture(depth1(3), tmp_path / name)
    assert all(s in e.value.faults[0].fix for s in (".html", ".svg", ".png", ".dot"))
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dir.svg").mkdir()
    for path in (tmp_path / "none" / "a.svg", tmp_path / "file" / "a.svg", tmp_path / "dir.svg"):
        with pytest.raises(UserError, match="V004"):
            draw.write_picture(depth1(3), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dir.svg", "file"]


def names_of(p: Plan) -> list[tuple[str, str, int, int]]:
    return [(b.name, b.label, b.parent, len(b.regions)) for b in blocks(p)]


def test_blocks_follow_the_names_of_modules() -> None:
    links: list[Link] = [("head", "stem")]
    regions = [region("stem", "x0")]
    for name in ("h.0.attn.q", "h.0.attn.k", "h.0.mlp.a", "h.0.mlp.b", "h.1.attn.q", "h.1.mlp.a"):
        regions.append(region(name, regions[-1].outputs[0]))
    regions.append(region("head", regions[-1].outputs[0]))
    assert names_of(make("gpt", regions, links)) == [
        ("h", "h", -1, 6), ("h.0", "h.0", 0, 4), ("h.0.attn", "attn", 1, 2), ("h.0.mlp", "mlp", 1, 2),
        ("h.1", "h.1", 0, 2),
    ]  # fmt: skip


def test_blocks_that_values_leave_and_enter_again_are_left_out() -> None:
    # convs.0 → norms.0 → convs.1 → norms.1: folding convs would make a circle
    regions = [region("stem", "x0")]
    for name in ("convs.0", "norms.0", "convs.1", "norms.1"):
        regions.append(region(name, regions[-1].outputs[0]))
    assert names_of(make("lists", regions, [("norms.1", "stem")])) == []


def test_blocks_around_one_and_the_same_are_one() -> None:
    regions = [region("stem", "x0")]
    for name in ("net.body.a", "net.body.b"):
        regions.append(region(name, regions[-1].outputs[0]))
    assert names_of(make("twins", regions, [("net.body.b", "stem")])) == [("net.body", "net.body", -1, 2)]


def test_blocks_of_the_regions_come_from_them() -> None:
    first, second, third = region("a", "x0"), region("b", "z.a"), region("c", "z.b")
    inside = [replace(r, within=("pair",)) for r in (first, second)]
    assert names_of(make("within", [*inside, third], [("c", "b")])) == [("pair", "pair", -1, 2)]


def test_long_rows_are_cut_into_runs() -> None:
    found = blocks(backprop(500))
    assert 15 <= len(found) <= 30
    assert [i for b in found for i in b.regions] == list(range(500))
    assert (found[0].name, found[0].parent) == ("fc1 … fc25", -1)
    assert blocks(backprop(30)) == ()


def timed() -> Plan:
    return chain(8).on(Machine(devices="h100:4", microbatches=4))


def test_recorded_steps_are_read_back() -> None:
    p = timed()
    step = of_simulation(p)
    assert Recorded.read(str(step)) == step
    assert step.devices == tuple(d.name for d in p.devices) and step.end_us == p.simulate().makespan_us
    work = [s for s in step.spans if p.tasks[s.task].kind != "P"]
    assert len({(s.task, s.microbatch) for s in work}) == len(work)
    assert {s.task for s in work} == {i for i, t in enumerate(p.tasks) if t.us and t.kind != "P"}
    step.check(p)
    few = of_simulation(p, 10)
    assert few.spans == step.spans[:10] and few.end_us == step.end_us


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"version": 2}', '{"version":1,"source":"x","devices":[],"spans":[]}',
        '{"version":1,"source":"measured","devices":["a"],"spans":[[0,0,1,0,1]]}',
        '{"version":1,"source":"measured","devices":["a"],"spans":[[0,0,0,2,1]]}',
        '{"version":1,"source":"measured","devices":["a"],"spans":[[0,0,0,0,NaN]]}',
        '{"version":1,"source":"measured","devices":["a"],"spans":[[true,0,0,0,1]]}',
        '{"version":1,"source":"measured","devices":[1],"spans":[]}',
        '{"version":1,"source":"measured","devices":["a"],"spans":3}',
        '{"version":1,"source":"measured","devices":["a"],"spans":[[0,0,0,0,1%s]]}' % ("0" * 400),
        '{"version":1,"source":"measured","devices":["a"],"spans":[[1%s,0,0,0,1]]}' % ("0" * 400),
        '{"version":1,"source":"measured","devices":["a"],"spans":[],"until_us":1%s}' % ("0" * 400),
    ],
)  # fmt: skip
def test_texts_that_are_no_recorded_step(text: str) -> None:
    with pytest.raises(UserError, match="V005"):
        Recorded.read(text)


def test_a_trace_of_another_plan_is_refused(tmp_path: Path) -> None:
    step = Recorded(("a",), (Span(10**6, 0, 0, 0.0, 1.0),), "measured")
    with pytest.raises(UserError, match="V006"):
        draw.write_picture(timed(), tmp_path / "a.html", trace=step)
    assert not list(tmp_path.iterdir())


def test_a_trace_is_checked_span_by_span() -> None:
    p = timed()
    step = replace(of_simulation(p), source="measured")
    step.check(p)
    # the devices of a second replica follow those of the first
    replace(step, devices=2 * step.devices, spans=tuple(replace(s, device=s.device + 4) for s in step.spans)).check(p)
    for change in ({"microbatch": 99}, {"device": (step.spans[0].device + 1) % 4}, {"task": 10**6}):
        with pytest.raises(UserError, match="V006"):
            replace(step, spans=(replace(step.spans[0], **change), *step.spans[1:])).check(p)
    for none in (replace(step, source="predicted"), replace(step, spans=())):
        with pytest.raises(UserError, match="V005"):
            to_html(p, timeline=none)


def test_a_long_step_is_summed_whole_and_its_picture_says_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    p = timed()
    step = replace(of_simulation(p), source="measured")
    (whole,) = Page(to_html(p, timeline=step)).data()
    assert whole["predicted"]["sums"] == pytest.approx(whole["measured"]["sums"], rel=1e-4)
    forward = sum(s.end_us - s.start_us for s in step.spans if p.tasks[s.task].kind == "F")
    assert whole["predicted"]["sums"]["F"] == pytest.approx(forward, abs=1e-2)
    monkeypatch.setattr("reclra_compile.view.data.MOST_SPANS", 10)
    (cut,) = Page(to_html(p, timeline=step)).data()
    for source in ("predicted", "measured"):
        assert len(cut[source]["spans"]) == 10 and cut[source]["all"] == len(step.spans)
        assert cut[source]["sums"] == whole[source]["sums"]


def test_two_wirings_have_names_and_colours_of_their_own() -> None:
    regions = mlp(12)
    few = make("same", regions, [("fc12", f"fc{i}") for i in range(11, 0, -1)])
    many = make("same", regions, [(f"fc{i + 1}", f"fc{i}") for i in range(11, 0, -1)])
    text = to_html(few, beside=many)
    assert [d["name"] for d in Page(text).data()] == ["same (1)", "same (2)"]
    for dark in (False, True):
        for i, plan in enumerate((few, many)):
            for k, colour in enumerate(wave_colours(len(plan.waves), dark)):
                assert f"--c{i}-{k}:{colour};" in text
    assert ".of1 .w1,.of1.w1{--w:var(--c1-1)}" in text and ".w1{--w:var(--c0-1)}" in text


def test_tables_list_regions_of_either_plan() -> None:
    fine, coarse = depth1(3), depth1(3)
    renamed = replace(coarse.regions[0], name="first")
    coarse = make("coarse", [renamed, *coarse.regions[1:]], [("fc3", "fc2"), ("fc3", "first")])
    page = Page(to_html(fine, beside=coarse))
    rows = [str(a["data-row"]) for t, a in page.tags if t == "tr" and "data-row" in a]
    assert rows[:2] == ["0:r0", "1:r0"] and page.texts["td"].count("no such region") == 2


def test_two_models_are_not_drawn_beside_each_other(tmp_path: Path) -> None:
    other = depth1(3)
    wider = replace(other, regions=(replace(other.regions[0], parameter_count=7), *other.regions[1:]))
    for wrong in (replace(other, inputs=(("x0", (3,), "float32"),)), wider, residual()):
        with pytest.raises(UserError, match="V008"):
            draw.write_picture(other, tmp_path / "a.html", beside=wrong)
    assert not list(tmp_path.iterdir())


def test_pages_show_times_and_two_wirings() -> None:
    p = timed()
    step = replace(of_simulation(p), source="measured")
    (data,) = Page(to_html(p, timeline=step)).data()
    assert data["measured"]["spans"] == data["predicted"]["spans"] and data["measured"]["until"] == step.end_us
    assert len(data["tasks"]) == len(p.tasks)
    assert "µs" in dict(data["regions"][0]["facts"])["all its tasks"]
    page = Page(to_html(depth1(6), beside=depth2(6)))
    assert [d["name"] for d in page.data()] == ["depth 1", "depth 2"]
    cells = page.texts["td"]
    assert "5" in cells and "fc6 by dense" in cells, "what differs stands in tables"
    assert {"tab-timeline"} <= {a.get("id") for _, a in Page(to_html(p)).tags}
    assert not [1 for _, a in Page(to_html(depth1(6))).tags if a.get("role") == "tab"]


def test_only_a_page_can_show_two_wirings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="V007"):
        draw.write_picture(depth1(3), tmp_path / "a.svg", beside=depth2(3))
    draw.write_picture(depth1(3), tmp_path / "a.html", beside=depth2(3))
