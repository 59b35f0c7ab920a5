"""Where everything in the picture of a plan is: regions in columns, error pathways in lanes beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reclra_compile.ir import Plan
from reclra_compile.view.captions import MARGIN, box, box_sizes, captions, heading, legend, page_width
from reclra_compile.view.drawing import Arc, Drawing, Edge, Point
from reclra_compile.view.facts import drawable, hover, output_region, pathway_facts, wave_of
from reclra_compile.view.layers import Link, layered
from reclra_compile.view.route import Node, Router, Spacing, Wire

__all__ = ["Drawing", "layout"]

#: the longest model, in columns, that runs from left to right; longer ones run upward
WIDEST = 14
#: from this many columns on, boxes have one line of text
COMPACT = 48


def layout(plan: Plan) -> Drawing:
    """Place the inputs, regions and loss of a plan, its forward edges and its error pathways."""
    links = links_of(plan)
    count = len(plan.inputs) + len(plan.regions) + 1
    columns, places = layered(count, links)
    across, compact = max(columns) < WIDEST, max(columns) >= COMPACT
    texts = captions(plan, across, compact)
    nodes = _nodes(columns, places, box_sizes(texts, across, compact), across)

    index = {r.name: len(plan.inputs) + i for i, r in enumerate(plan.regions)}
    output = output_region(plan)
    pathways = drawable(plan)
    errors = [Wire(index[p.source], index[p.target], 1) for p in pathways]
    if output:
        errors.append(Wire(count - 1, index[output], 1))
    long = [(a, b) for a, b in links if columns[b] - columns[a] > 1]
    space = Spacing(44.0 if across else 14.0 if compact else 22.0)
    router = Router(nodes, [*errors, *(Wire(a, b, -1) for a, b in long)], space)
    lines = [router.points(i) for i in range(len(errors) + len(long))]

    rims = [_rim(router, n) for n in nodes]
    top = heading(plan)
    frame = _Frame.around([p for shape in (*rims, *lines) for p in shape], across)
    wide = page_width(top, frame.width)
    keys = legend(plan, wide)
    frame = frame.moved((wide - frame.width) / 2, keys[-1].y + 34)

    boxes = []
    for caption, (low, high) in zip(texts, rims, strict=True):
        (x, y), (x2, y2) = frame.point(low), frame.point(high)
        boxes.append(box(caption, min(x, x2), min(y, y2), abs(x - x2), abs(y - y2)))
    waves = wave_of(plan)
    arcs = []
    for p, line in zip(pathways, lines, strict=False):
        wave = waves.get(p.target)
        facts = hover(p.name, pathway_facts(p, wave))
        arcs.append(
            Arc(p.name, p.source, p.target, -1 if wave is None else wave, p.edge, frame.line(line), facts)
        )
    seed = None
    if output:
        start = "the error starts here: the gradient of the loss at the output"
        seed = Arc("", "loss", output, 0, False, frame.line(lines[len(pathways)]), start)
    edges = []
    routes = dict(zip(long, lines[len(errors) :], strict=True))
    for a, b in links:
        straight = (rims[a][1][0], nodes[a].v), (rims[b][0][0], nodes[b].v)
        points = frame.line(routes.get((a, b), straight))
        edges.append(Edge(a, b, points, (a, b) not in routes))
    graph = (frame.x, frame.y, frame.width, frame.height)
    return Drawing(plan.name, wide, frame.y + frame.height + MARGIN, graph, across, len(plan.waves),
                   tuple(boxes), tuple(edges), tuple(arcs), seed, top, keys)  # fmt: skip


def links_of(plan: Plan) -> list[Link]:
    """Forward edges between the inputs, the regions and, last, the loss, by index."""
    producer = {name: i for i, (name, _, _) in enumerate(plan.inputs)}
    for i, r in enumerate(plan.regions):
        producer.update(dict.fromkeys(r.outputs, len(plan.inputs) + i))
    links: dict[Link, None] = {}
    for i, r in enumerate(plan.regions):
        here = len(plan.inputs) + i
        links.update(dict.fromkeys((producer[v], here) for v in r.inputs if producer.get(v, here) != here))
    if plan.output in producer:
        links[producer[plan.output], len(plan.inputs) + len(plan.regions)] = None
    return list(links)


def _nodes(
    columns: list[int], places: list[float], sizes: list[tuple[float, float]], across: bool
) -> list[Node]:
    """Nodes for the router; the first node of a column is above the others, or left of them."""
    extents = [(w, h) if across else (h, w) for w, h in sizes]
    pitch = max(dv for _, dv in extents) + 26
    ends: dict[int, tuple[float, float]] = {}
    for c, p in zip(columns, places, strict=True):
        low, high = ends.get(c, (p, p))
        ends[c] = min(low, p), max(high, p)
    nodes = []
    for c, p, (du, dv) in zip(columns, places, extents, strict=True):
        first, last = p == ends[c][0], p == ends[c][1]
        nodes.append(
            Node(c, du, -p * pitch, dv, first, last) if across else Node(c, du, p * pitch, dv, last, first)
        )
    return nodes


def _rim(router: Router, n: Node) -> tuple[Point, Point]:
    """Two opposite corners of a node."""
    left = router.left[n.column]
    return (left, n.v - n.dv / 2), (left + router.width[n.column], n.v + n.dv / 2)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The part of the picture with the graph; turns u (forward) and v (across) into pixels."""

    low: Point
    high: Point
    across: bool
    x: float = 0.0
    y: float = 0.0

    @classmethod
    def around(cls, points: Iterable[Point], across: bool) -> _Frame:
        us, vs = zip(*points, strict=True)
        return cls((min(us), min(vs)), (max(us), max(vs)), across)

    def moved(self, x: float, y: float) -> _Frame:
        return _Frame(self.low, self.high, self.across, x, y)

    @property
    def width(self) -> float:
        k = 0 if self.across else 1
        return self.high[k] - self.low[k]

    @property
    def height(self) -> float:
        k = 1 if self.across else 0
        return self.high[k] - self.low[k]

    def point(self, p: Point) -> Point:
        u, v = p
        if self.across:
            return round(self.x + u - self.low[0], 2), round(self.y + self.high[1] - v, 2)
        return round(self.x + v - self.low[1], 2), round(self.y + self.high[0] - u, 2)

    def line(self, points: Iterable[Point]) -> tuple[Point, ...]:
        return tuple(self.point(p) for p in points)
