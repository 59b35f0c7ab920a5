"""The region graph: who feeds whom, and how regions are numbered as layers."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx

from reclra_compile.ir import Region

FLOAT_BYTES = 4
LEAST_MEMORY = 64 * 2**20  #: bytes of synapses that a small model may have, however few its parameters


def memory_for(regions: Iterable[Region]) -> int:
    """Bytes that error synapses may take where the wiring does not say: as much as the parameters, or 64 MiB."""
    return max(FLOAT_BYTES * sum({r.parameters: r.parameter_count for r in regions}.values()), LEAST_MEMORY)


class RegionGraph:
    """Forward edges between regions, with the queries that wirings need.

    `labelled` is false inside a block, whose output has an error but no labels to read out. `memory` is the
    number of bytes that the synapses of `kernel: auto` onto feature maps may take; by default what the
    parameters take, or `LEAST_MEMORY` if that is more.
    """

    def __init__(
        self, regions: tuple[Region, ...], output: str, labelled: bool = True, memory: int | None = None
    ) -> None:
        self.regions = {r.name: r for r in regions}
        producer = {v: r.name for r in regions for v in r.outputs}
        self.output = producer[output]
        self.labelled = labelled
        self.memory = memory or memory_for(regions)
        self.forward: nx.DiGraph[str] = nx.DiGraph()
        self.forward.add_nodes_from(self.regions)
        self.forward.add_edges_from((producer[v], r.name) for r in regions for v in r.inputs if v in producer)
        learned = [r.name for r in regions if r.parameters and r.name != self.output]
        #: layers in the model's order, numbered from 1; the output region is the last
        self.layers = (*learned, self.output)
        self.position = {n: i for i, n in enumerate(self.regions)}

    @property
    def depth(self) -> int:
        """Regions with parameters on the longest way from an input to the output region, which does not count."""
        reach: dict[str, int] = {}
        for name in nx.topological_sort(self.forward):
            before = max((reach[n] for n in self.forward.predecessors(name)), default=0)
            reach[name] = before + bool(self.regions[name].parameters and name != self.output)
        return reach[self.output]

    def reads_out(self, name: str) -> bool:
        """True for the region whose output the loss compares with labels."""
        return self.labelled and name == self.output

    def consumers(self, name: str) -> list[str]:
        """Regions that read an output of `name`, in order."""
        return sorted(self.forward.successors(name), key=self.position.__getitem__)

    def learned_consumers(self, name: str) -> list[str]:
        """The first regions that learn (or the output) on each way downstream from `name`."""
        found: set[str] = set()
        seen: set[str] = set()
        stack = self.consumers(name)
        while stack:
            n = stack.pop()
            if n in seen:
                continue
            seen.add(n)
            if self.regions[n].learns or n == self.output:
                found.add(n)
            else:
                stack.extend(self.consumers(n))
        return sorted(found, key=self.position.__getitem__)

    def nearest_downstream(self, name: str, among: frozenset[str]) -> list[str]:
        """The region of `among` that is fewest edges below `name`, first in the model's order; [] if none is."""
        generation = {name}
        seen = {name}
        while generation:
            found = (generation & among) - {name}
            if found:
                return [min(found, key=self.position.__getitem__)]
            generation = {s for n in generation for s in self.forward.successors(n)} - seen
            seen |= generation
        return []
