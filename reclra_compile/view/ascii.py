"""A plan as lines of text: regions below each other, the loss on top, and error pathways in lanes beside them.

Errors run down the lanes, as history does in `git log --graph`; the forward pass runs up. All targets of one source
hang on one lane. A region that hears and is heard has a second line, where its own lane leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from reclra_compile.ir import Plan
from reclra_compile.view.blocks import Block, blocks
from reclra_compile.view.facts import drawable, output_region, shape_text, wave_of
from reclra_compile.view.label import plural

NO_WAVE = -1
FEW = 48  #: regions up to which they are lines of their own
Cell = tuple[str, int]  #: a character, and the wave that colours it
BLANK: Cell = (" ", NO_WAVE)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of lanes: of lines, their ends, and where others join; `tied` lines follow the model's edges."""

    down: str
    across: str
    tied_down: str
    tied_across: str
    joints: dict[tuple[bool, bool, bool], str]  #: by whether the lane goes on up, down, and a line comes from the left
    leaves: str
    hears: str
    heard: str
    silent: str
    loss: str
    data: str
    open: str
    closed: str


_CORNERS = {(False, True, False): "╭", (True, False, False): "╰", (True, True, False): "├", (False, True, True): "┬",
            (True, False, True): "┴", (True, True, True): "┼"}  # fmt: skip
BOXES = Glyphs("│", "─", "┊", "╌", _CORNERS, "╯", "▶", "●", "·", "○", "□", "▾", "▸")
_PLAIN = {key: "," if not key[0] else "`" if not key[1] else "+" for key in _CORNERS}
ASCII = Glyphs("|", "-", ":", ".", _PLAIN, "'", ">", "*", ".", "o", "#", "v", ">")


@dataclass(frozen=True, slots=True)
class Node:
    """A line's subject: a region, a block of `size` regions, an input or the loss; `depth` blocks are around it."""

    name: str
    kind: str
    depth: int = 0
    what: str = ""
    shape: str = ""
    waves: tuple[int, ...] = ()
    size: int = 1
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One line: the cells of the lanes, then what stands at the right of them (None: nothing); `also` names sources
    of errors whose lanes have no room.
    """

    lanes: tuple[Cell, ...]
    node: Node | None = None
    also: tuple[str, ...] = ()


@dataclass
class _Lane:
    """From a source's line to those of its targets, each with its wave."""

    source: int
    tied: bool
    taps: dict[int, int] = field(default_factory=dict)
    top: int = 0
    bottom: int = 0
    column: int = -1

    @property
    def wave(self) -> int:
        return min(self.taps.values())


def strand(plan: Plan, collapsed: bool, room: int, glyphs: Glyphs = BOXES) -> tuple[Line, ...]:
    """The lines of a plan from its loss to its inputs; with `collapsed` blocks are one line each.

    The lanes take at most `room` columns; what has none is in the lines' `also`.
    """
    nodes, place = _nodes(plan, collapsed)
    lanes = _lanes(plan, place, len(nodes) - 1)
    both = {lane.source for lane in lanes} & {t for lane in lanes for t in lane.taps}
    rows = [(n, second) for n in reversed(range(len(nodes))) for second in ((False, True) if n in both else (False,))]
    line_of = {row: k for k, row in enumerate(rows)}
    for lane in lanes:
        ends = [line_of[lane.source, lane.source in both], *(line_of[t, False] for t in lane.taps)]
        lane.top, lane.bottom = min(ends), max(ends)
    columns = min(_columns(lanes), max(1, (room - 2) // 2))
    also: dict[int, list[str]] = {}
    for lane in lanes:
        if lane.column >= columns:
            for t in lane.taps:
                also.setdefault(t, []).append(nodes[lane.source].name)
    drawn = [lane for lane in lanes if lane.column < columns]
    lines = []
    for k, (n, second) in enumerate(rows):
        leaving = [lane for lane in drawn if lane.source == n] if second == (n in both) else []
        if second and not leaving:
            continue
        hearing = [] if second else [lane for lane in drawn if n in lane.taps]
        joined = [(lane, lane.wave) for lane in leaving] + [(lane, lane.taps[n]) for lane in hearing]
        cells = _cells(k, joined, [lane for lane in drawn if lane.top <= k <= lane.bottom], columns, glyphs)
        if second:
            mark = glyphs.leaves
        else:
            fixed = {"loss": glyphs.loss, "input": glyphs.data, "block": glyphs.open}
            hears = bool(hearing) or n in also
            mark = fixed.get(nodes[n].kind) or (glyphs.hears if hears else glyphs.heard if joined else glyphs.silent)
        cells[-1] = (mark, joined[-1][1] if joined else NO_WAVE)
        lines.append(Line(tuple(cells), None if second else nodes[n], () if second else tuple(also.get(n, ()))))
    return tuple(lines)


def _nodes(plan: Plan, collapsed: bool) -> tuple[list[Node], dict[str, int]]:
    """Inputs, regions and blocks in the order of the model, then the loss; and where each region is among them.

    A block's title follows its regions: on the screen, which shows the last first, it is above them.
    """
    waves, folds = wave_of(plan), folded(plan) if collapsed else {}
    nodes = [Node(name, "input", what="input", shape=shape_text(shape)) for name, shape, _ in plan.inputs]
    source_of = {name: k for k, (name, _, _) in enumerate(plan.inputs)}
    place: dict[str, int] = {}
    open_: list[tuple[str, int]] = []  # blocks around the region before, with how many regions were ahead of them
    for k, r in enumerate([*plan.regions, None]):
        around = r.within if r is not None and not collapsed else ()
        same = sum(1 for _ in takewhile(lambda pair: pair[0][0] == pair[1], zip(open_, around, strict=False)))
        while len(open_) > same:
            name, first = open_.pop()
            nodes.append(Node(name, "block", len(open_), size=k - first))
        open_ += [(name, k) for name in around[same:]]
        if r is None:
            continue
        block, members = folds.get(k, ("", (k,)))
        if k < members[-1]:
            continue
        inside = [plan.regions[i] for i in members]
        place.update((i.name, len(nodes)) for i in inside)
        source_of.update((v, len(nodes)) for i in inside for v in i.outputs)
        if block:
            heard = tuple(sorted({waves[i.name] for i in inside if i.name in waves}))
            what = plural(len(inside), "region")
            nodes.append(Node(block, "folded", 0, what, shape_text(r.shape), heard, len(inside)))
            continue
        what = r.op if r.phi == "identity" else f"{r.op} {r.phi}"
        own = (waves[r.name],) if r.name in waves else ()
        nodes.append(Node(r.name, "region", len(around), what, shape_text(r.shape), own))
    read: dict[int, dict[int, None]] = {}
    for r in plan.regions:
        here = place[r.name]
        read.setdefault(here, {}).update((source_of[v], None) for v in r.inputs if source_of.get(v, here) != here)
    for here, sources in read.items():
        below = next((n for n in range(here - 1, -1, -1) if nodes[n].kind != "block"), -1)
        if set(sources) != {below}:
            nodes[here] = replace(nodes[here], reads=tuple(nodes[s].name for s in sources))
    nodes.append(Node("loss", "loss"))
    return nodes, place


def folded(plan: Plan) -> dict[int, tuple[str, tuple[int, ...]]]:
    """The block that stands for each region of a collapsed plan, and the regions that it stands for.

    Blocks are the smallest ones with which there are few lines; of one around others, what is in none of them.
    """
    found = blocks(plan)
    depth: list[int] = []
    for b in found:
        depth.append(depth[b.parent] + 1 if b.parent >= 0 else 0)
    folds: dict[int, Block] = {}
    for level in range(max(depth, default=-1), -1, -1):
        folds = {}
        for b, at in zip(found, depth, strict=True):  # inner blocks follow those around them
            if at <= level:
                folds.update(dict.fromkeys(b.regions, b))
        lines = len(plan.regions) - len(folds) + len({b.name for b in folds.values()})
        if lines <= FEW:
            break
    members: dict[str, list[int]] = {}
    for k, b in sorted(folds.items()):
        members.setdefault(b.name, []).append(k)
    return {k: (b.name, tuple(members[b.name])) for k, b in folds.items()}


def _lanes(plan: Plan, place: dict[str, int], loss: int) -> list[_Lane]:
    waves = wave_of(plan)
    found: dict[tuple[int, bool], _Lane] = {}
    root = output_region(plan)
    pairs = [(place[p.source], place[p.target], p.edge, waves.get(p.target, NO_WAVE)) for p in drawable(plan)]
    for source, target, tied, wave in [*([(loss, place[root], False, 0)] if root else []), *pairs]:
        if source == target:
            continue
        taps = found.setdefault((source, tied), _Lane(source, tied)).taps
        taps[target] = min(taps.get(target, wave), wave)
    return list(found.values())


def _columns(lanes: Sequence[_Lane]) -> int:
    """Give each lane a column in which no other is at its lines, the longest first; how many columns there are."""
    taken: list[list[_Lane]] = []
    for lane in sorted(lanes, key=lambda one: (one.top - one.bottom, one.top)):
        free = (k for k, there in enumerate(taken) if all(o.bottom < lane.top or lane.bottom < o.top for o in there))
        lane.column = next(free, len(taken))
        if lane.column == len(taken):
            taken.append([])
        taken[lane.column].append(lane)
    return len(taken)


def _cells(
    k: int, joined: list[tuple[_Lane, int]], here: Iterable[_Lane], columns: int, g: Glyphs
) -> list[Cell]:
    """The lanes `here` at line k, and from those that are `joined` what leads to the right, in its wave's colour."""
    cells = [BLANK] * (2 * columns + 2)
    for lane in here:
        cells[2 * lane.column] = (g.tied_down if lane.tied else g.down, lane.wave)
    joined.sort(key=lambda one: one[0].column)
    for i, (lane, wave) in enumerate(joined):
        at = 2 * lane.column
        cells[at] = (g.joints[lane.top < k, k < lane.bottom, i > 0], wave)
        end = 2 * joined[i + 1][0].column if i + 1 < len(joined) else len(cells) - 1
        for x in range(at + 1, end):
            if cells[x] == BLANK:  # another lane's vertical stays, so that a crossing is no joint
                cells[x] = (g.tied_across if lane.tied else g.across, wave)
    return cells
