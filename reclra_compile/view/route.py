"""Routes for the lines of a layered drawing, so that none runs through a box it does not touch.

Coordinates: u along the forward direction, v across it. Boxes stand in columns of equal u. A wire
leaves the outermost box of a column by a port on its outer face and any other box by a port on its
face towards the channel between two columns; there a track takes it out. Beyond the boxes it runs
in a lane, as near to them as the boxes and the shorter wires below allow, so that wires nest.

`page/route.js` has the same rules for the page, where blocks fold: change both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Node:
    """A box: its column, least extent along the flow, middle and extent across it, and if it is outermost."""

    column: int
    du: float
    v: float
    dv: float
    top: bool
    bottom: bool


@dataclass(frozen=True, slots=True)
class Wire:
    """A line between two nodes, by index; `side` is +1 above the columns and −1 below."""

    source: int
    target: int
    side: int


@dataclass(frozen=True, slots=True)
class Spacing:
    """Distances in pixels; a source with more than `bundle` wires on a side sends them in one lane."""

    channel: float
    port: float = 13
    track: float = 9
    lane: float = 13
    first_lane: float = 24
    bundle: int = 14


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a wire: by a port on the outer face, or (track) by the channel on side `way` of the box."""

    wire: int
    node: int
    way: int
    port: bool
    cell: int
    channel: int


class Router:
    """Finds widths of columns and channels, then the points of each wire."""

    def __init__(self, nodes: Sequence[Node], wires: Sequence[Wire], spacing: Spacing) -> None:
        self.nodes, self.wires, self.space = nodes, wires, spacing
        self.columns = max(n.column for n in nodes) + 1
        self._bundles = self._bundle()
        self._ends = [(self._end(i, w.source, w.target), self._end(i, w.target, w.source))
                      for i, w in enumerate(wires)]  # fmt: skip
        self._tracks = self._track()
        self._seats = self._seat()
        self._columns_u()
        self._levels = self._lane()

    def _bundle(self) -> list[int]:
        """The group of each wire; wires of one group share the source's port and the lane."""
        groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for i, w in enumerate(self.wires):
            groups[w.source, w.side, self._way(w.source, w.target)].append(i)
        of = list(range(len(self.wires)))
        for (_, side, _), members in groups.items():
            # forward edges that leave one region carry one value: a common line says so
            if len(members) > (self.space.bundle if side > 0 else 1):
                for i in members:
                    of[i] = members[0]
        return of

    def _way(self, node: int, other: int) -> int:
        return -1 if self.nodes[other].column < self.nodes[node].column else 1

    def _end(self, wire: int, node: int, other: int) -> _End:
        n, way = self.nodes[node], self._way(node, other)
        outer = n.top if self.wires[wire].side > 0 else n.bottom
        port = outer and n.column != self.nodes[other].column
        channel = n.column if way > 0 else n.column - 1
        cell = 4 * n.column + (way > 0) if port else 4 * channel + (2 if way > 0 else 3)
        return _End(wire, node, way, port, cell, channel)

    def _span(self, wire: int) -> tuple[int, int]:
        a, b = self._ends[wire]
        return min(a.cell, b.cell), max(a.cell, b.cell)

    def _length(self, wire: int) -> float:
        """The cells a wire spans, a little less for each track that brings its ends nearer together."""
        low, high = self._span(wire)
        tracks = sum(self._tracks.get((wire, e.node), 0) for e in self._ends[wire])
        return high - low - tracks / 1024

    def _seat(self) -> dict[tuple[int, int], tuple[int, int]]:
        """For each end (wire, node): its place among the ends on the same face, and how many there are."""
        faces: dict[tuple[int, int, int], dict[int, list[_End]]] = defaultdict(lambda: defaultdict(list))
        for source, target in self._ends:
            for end, shared in ((source, True), (target, False)):
                side = self.wires[end.wire].side
                key = self._bundles[end.wire] if shared else end.wire
                faces[end.node, side, 0 if end.port else end.way][key if shared else ~key].append(end)
        seats = {}
        for groups in faces.values():
            # longer wires nest outside shorter ones: they meet the face nearer to its middle
            def rank(ends: list[_End]) -> tuple[int, float, int]:
                length = max(self._length(e.wire) for e in ends)
                way = ends[0].way if ends[0].port else 1
                return way, -way * length, ends[0].wire

            for place, ends in enumerate(sorted(groups.values(), key=rank)):
                for end in ends:
                    seats[end.wire, end.node] = (place, len(groups))
        return seats

    def _track(self) -> dict[tuple[int, int], int]:
        """For each end in a channel its track, counted from the box it belongs to."""
        used: dict[int, dict[tuple[int, int], int]] = defaultdict(dict)
        tracks = {}

        def rank(item: tuple[_End, bool]) -> tuple[float, int, int]:
            # lower boxes and shorter wires turn farther from the box, so that they stay inside the others
            end, (low, high) = item[0], self._span(item[0].wire)
            return -self.wires[end.wire].side * self.nodes[end.node].v, low - high, end.wire

        ends = [(end, end is pair[0]) for pair in self._ends for end in pair if not end.port]
        for end, shared in sorted(ends, key=rank):
            mine = used[2 * end.channel + (end.way < 0)]
            key = (end.node, self._bundles[end.wire]) if shared else (end.node, ~end.wire)
            tracks[end.wire, end.node] = mine.setdefault(key, len(mine))
        self._used = {k: len(v) for k, v in used.items()}
        return tracks

    def _columns_u(self) -> None:
        """Place the columns: wide enough for their ports, channels wide enough for their tracks."""
        ports = [0] * self.columns
        self.width = [0.0] * self.columns
        for box in self.nodes:
            self.width[box.column] = max(self.width[box.column], box.du)
        for (wire, node), (_, n) in self._seats.items():
            if any(e.port and e.node == node for e in self._ends[wire]):
                column = self.nodes[node].column
                ports[column] = max(ports[column], n)
        self.width = [max(w, 16 + self.space.port / 2 * n) for w, n in zip(self.width, ports, strict=True)]
        self.left = [0.0]
        for c in range(self.columns - 1):
            tracks = self._used.get(2 * c, 0) + self._used.get(2 * c + 1, 0)
            channel = self.space.channel + (14 + self.space.track * (tracks - 1) if tracks else 0)
            self.left.append(self.left[c] + self.width[c] + channel)

    def _lane(self) -> list[float | None]:
        """The v of each wire's lane; None for wires that stay in one channel."""
        levels: list[float | None] = [None] * len(self.wires)
        for side in (1, -1):
            free = [float("-inf")] * (4 * self.columns)
            for n in self.nodes:
                rim = side * n.v + n.dv / 2 + self.space.first_lane - self.space.lane
                for cell in (4 * n.column, 4 * n.column + 1):
                    free[cell] = max(free[cell], rim)
            groups: dict[int, list[int]] = defaultdict(list)
            for i, w in enumerate(self.wires):
                if w.side == side and not self._local(i):
                    groups[self._bundles[i]].append(i)
            hull = {g: (min(self._span(i)[0] for i in m), max(self._span(i)[1] for i in m))
                    for g, m in groups.items()}  # fmt: skip
            longest = {g: max(self._length(i) for i in m) for g, m in groups.items()}
            for g in sorted(groups, key=lambda g: (hull[g][1] - hull[g][0], longest[g], g)):
                a, b = hull[g]
                level = max(free[a : b + 1]) + self.space.lane
                free[a : b + 1] = [level] * (b + 1 - a)
                for i in groups[g]:
                    levels[i] = side * level
        return levels

    def _local(self, wire: int) -> bool:
        source, target = self._ends[wire]
        return not source.port and not target.port and source.channel == target.channel

    def points(self, wire: int) -> tuple[Point, ...]:
        """The corners of a wire, from its source to its target."""
        source, target = self._ends[wire]
        level = self._levels[wire]
        first, last = self._leave(source), self._leave(target)
        if level is None:
            return _tidy([*first, (first[1][0], last[0][1]), last[0]])
        rise = [(first[-1][0], level), (last[-1][0], level)]
        return _tidy([*first, *rise, *reversed(last)])

    def _leave(self, end: _End) -> list[Point]:
        """From the box to where the wire can turn outward."""
        n, side = self.nodes[end.node], self.wires[end.wire].side
        place, seats = self._seats[end.wire, end.node]
        left, width = self.left[n.column], self.width[n.column]
        if end.port:
            step = min(self.space.port, (width - 14) / (seats - 1)) if seats > 1 else 0.0
            return [(left + width / 2 + (place - (seats - 1) / 2) * step, n.v + side * n.dv / 2)]
        # the middle of this face is where forward edges meet the box
        step = min(7.0, (n.dv / 2 - 16) / (seats - 1)) if seats > 1 else 0.0
        v = n.v + side * (n.dv / 2 - 8 - place * step)
        away = 18 + self.space.track * self._tracks[end.wire, end.node]
        edge = left + width if end.way > 0 else left
        return [(edge, v), (edge + end.way * away, v)]


def _tidy(points: list[Point]) -> tuple[Point, ...]:
    """Points without repetitions and without those on a straight line between their neighbours."""
    kept: list[Point] = []
    for p in points:
        if kept and abs(p[0] - kept[-1][0]) < 1e-9 and abs(p[1] - kept[-1][1]) < 1e-9:
            continue
        while len(kept) > 1 and any(
            abs(kept[-2][k] - kept[-1][k]) + abs(kept[-1][k] - p[k]) < 1e-9 for k in (0, 1)
        ):
            kept.pop()
        kept.append(p)
    return tuple(kept)
