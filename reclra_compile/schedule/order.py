"""Order tasks by their reads and writes, and free each value after its last reader."""

from __future__ import annotations

from collections import defaultdict

import networkx as nx

from reclra_compile.ir import Task

_RANK = {k: i for i, k in enumerate("FSLDTUVM")}
KEPT = ("loss", "g.")  #: values that outlive the step


def dependencies(tasks: tuple[Task, ...]) -> nx.DiGraph[int]:
    """The task graph: an edge from the writer of each value to its readers, tasks by index."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(tasks)))
    writer = {v: i for i, t in enumerate(tasks) for v in t.writes}
    graph.add_edges_from((writer[v], i) for i, t in enumerate(tasks) for v in t.reads if v in writer)
    return graph


def order(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """A deterministic topological order: forward as the model does it, then wave by wave, last region
    first, each region's update right after its error neurons so that what the forward pass kept for it
    is freed early. Of the order given, only that of the forward tasks counts: it decides which random
    numbers (dropout) each region draws.
    """
    position = {t.subject: i for i, t in enumerate(t for t in tasks if t.kind == "F")}
    heard_by = {v: t.subject for t in tasks if t.kind == "T" for v in t.reads}

    def key(i: int) -> tuple[int, int, int, str]:
        task = tasks[i]
        if task.kind == "F":
            return (task.wave, position[task.subject], 0, "")
        region = heard_by.get(f"d.{task.subject}", task.subject) if task.kind in "DVM" else task.subject
        return (task.wave, -position.get(region, 0), _RANK[task.kind], task.subject)

    return tuple(tasks[i] for i in nx.lexicographical_topological_sort(dependencies(tasks), key=key))


def frees(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """Insert an X task after the last reader (or the writer, if nobody reads) of each value.

    On several devices the model's inputs and labels stay: each device reads them when its turn comes.
    """
    last: dict[str, int] = {}
    written = {v for t in tasks for v in t.writes}
    several = any(t.device for t in tasks)
    for i, task in enumerate(tasks):
        for value in (*task.reads, *task.writes):
            last[value] = i
    dying: dict[int, list[str]] = defaultdict(list)
    for value, i in last.items():
        if not value.startswith(KEPT) and (value in written or not several):
            dying[i].append(value)
    result: list[Task] = []
    for i, task in enumerate(tasks):
        result.append(task)
        if i in dying:
            name = task.id.replace(" ", ":")
            result.append(Task("X", name, tuple(sorted(dying[i])), (), task.wave, task.device, turn=task.turn))
    return tuple(result)
