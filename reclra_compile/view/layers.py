"""Layers of a directed acyclic graph: the column of each node and its place across the columns.

`page/columns.js` has the same rules for the page, where blocks fold: change both.
"""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx

Link = tuple[int, int]
Near = dict[int, list[int]]


def layered(nodes: int, links: Sequence[Link]) -> tuple[list[int], list[float]]:
    """The column of each node (longest path) and its place across, where neighbours differ by 1 or more."""
    after: Near = {n: [] for n in range(nodes)}
    before: Near = {n: [] for n in range(nodes)}
    for a, b in sorted(set(links)):
        after[a].append(b)
        before[b].append(a)
    columns = [0] * nodes
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(links)
    for k, generation in enumerate(nx.topological_generations(graph)):
        for node in generation:
            columns[node] = k
    for node in range(nodes):
        # an input that only a late region reads stands next to that region
        if not before[node] and after[node]:
            columns[node] = min(columns[m] for m in after[node]) - 1
    rows: list[list[int]] = [[] for _ in range(max(columns) + 1)]
    for node in range(nodes):
        rows[columns[node]].append(node)
    _order(rows, before, after)
    return columns, _spread(rows, columns, before, after)


def _order(rows: list[list[int]], before: Near, after: Near) -> None:
    """Order each column by the barycentre of its nodes' neighbours, forward and backward in turn."""
    place = {n: i - (len(row) - 1) / 2 for row in rows for i, n in enumerate(row)}
    for sweep in range(6):
        forward = sweep % 2 == 0
        for row in rows if forward else reversed(rows):
            centre = {}
            for n in row:
                near = before[n] if forward else after[n]
                centre[n] = sum(place[m] for m in near) / len(near) if near else place[n]
            row.sort(key=lambda n: (centre[n], place[n]))
            for i, n in enumerate(row):
                place[n] = i - (len(row) - 1) / 2


def _spread(rows: list[list[int]], columns: list[int], before: Near, after: Near) -> list[float]:
    """Places that keep the order, near those of neighbours, so that chains and branches are straight."""
    at = {n: i - (len(row) - 1) / 2 for row in rows for i, n in enumerate(row)}
    for sweep in range(8):
        forward = sweep % 2 == 0
        for row in rows if forward else reversed(rows):
            wish = []
            for n in row:
                # long edges have lanes of their own and do not pull
                near = [m for m in (before[n] if forward else after[n]) if abs(columns[m] - columns[n]) == 1]
                wish.append(sum(at[m] for m in near) / len(near) if near else at[n])
            at.update(zip(row, _apart(wish), strict=True))
    middle = (max(at.values()) + min(at.values())) / 2
    return [round(at[n] - middle, 3) for n in range(len(columns))]


def _apart(wish: Sequence[float]) -> list[float]:
    """The places nearest to `wish` in least squares that are 1 or more apart, in the same order."""
    blocks: list[tuple[float, int]] = []
    for i, w in enumerate(wish):
        mean, size = w - i, 1
        while blocks and blocks[-1][0] >= mean:
            m, k = blocks.pop()
            mean, size = (mean * size + m * k) / (size + k), size + k
        blocks.append((mean, size))
    flat = [mean for mean, size in blocks for _ in range(size)]
    return [f + i for i, f in enumerate(flat)]
