"""What an error graph costs: the modelled makespan of its error phase, its synapses, and how far errors reach.

Times are whole ticks and makespans are multiplied by the number of devices, so that sums are exact and equal
makespans compare equal whatever the order of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from reclra_compile.ir import Device, Pathway, Region
from reclra_compile.rules.catalogue import updates_of
from reclra_compile.spec.graph import FLOAT_BYTES, RegionGraph
from reclra_compile.spec.synapses import choose, costed, shaped

Ints = NDArray[np.int64]
FORBIDDEN = 1 << 60  #: the time of a job that cannot be: ticks
_ROOM = 1 << 56  #: ticks that all jobs together may take, times the devices


@dataclass(frozen=True, slots=True)
class Rates:
    """The devices as `count` equal ones: mean rates, the slowest link; a rate of 0 is unlimited."""

    count: int
    flops_per_s: float = 0.0
    bytes_per_s: float = 0.0
    task_us: float = 0.0
    link_bytes_per_s: float = 0.0
    link_latency_us: float = 0.0
    microbatches: int = 1

    def task(self, flops: float, moved: float) -> float:
        """Microseconds of one task over all microbatches; FLOPs where neither arithmetic nor memory has a rate."""
        start = self.task_us * self.microbatches
        if not self.flops_per_s and not self.bytes_per_s:
            return flops + start
        arithmetic = flops / self.flops_per_s * 1e6 if self.flops_per_s else 0.0
        traffic = moved / self.bytes_per_s * 1e6 if self.bytes_per_s else 0.0
        return max(arithmetic, traffic) + start

    def message(self, size: float) -> float:
        """Microseconds that a message of `size` bytes occupies its link for."""
        return size / self.link_bytes_per_s * 1e6 if self.link_bytes_per_s else 0.0


def rates_of(devices: Sequence[Device], microbatches: int = 1) -> Rates:
    """The equal devices that the model of the error phase works with."""
    links = [d.link_bytes_per_s for d in devices if d.link_bytes_per_s]
    return Rates(
        len(devices),
        mean(d.flops_per_s for d in devices),
        mean(d.bytes_per_s for d in devices),
        mean(d.task_us for d in devices),
        link_bytes_per_s=min(links, default=0.0),
        link_latency_us=max((d.link_latency_us for d in devices), default=0.0),
        microbatches=microbatches,
    )


@dataclass(frozen=True, slots=True, order=True)
class Score:
    """What is minimised, in this order: the makespan (ticks × devices), synapse bytes, edges that errors skip."""

    makespan: int
    synapse_bytes: int
    distance: int


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Regions that need an error, in model order, and what each costs with each source.

    Column n of the matrices is the output. `job` and `message` are in ticks of `tick_us` microseconds; a job of
    FORBIDDEN ticks cannot be. `counted` are the bytes that the budget of `limit` bytes is for; 0 is no budget.
    """

    names: tuple[str, ...]
    devices: int
    job: Ints
    message: Ints
    latency: int
    synapse_bytes: Ints
    counted: Ints
    distance: Ints
    limit: int = 0
    tick_us: float = 1.0

    @property
    def output(self) -> int:
        """The number that stands for the output among sources."""
        return len(self.names)

    def us(self, makespan: int) -> float:
        """Microseconds of a makespan."""
        return makespan * self.tick_us / self.devices

    def below(self, region: int) -> list[int]:
        """Regions that `region` may hear, the output left out."""
        return [s for s in range(self.output) if self.job[region, s] < FORBIDDEN]


def levels(sources: Sequence[int]) -> list[int]:
    """The wave of each region, from 1; `sources` are as in `score`, later regions first to be heard."""
    wave = [0] * (len(sources) + 1)
    for i in reversed(range(len(sources))):
        wave[i] = wave[sources[i]] + 1
    return wave[:-1]


def score(problem: Problem, sources: Sequence[int]) -> Score:
    """The cost of an error graph in which region i hears `sources[i]`."""
    wave = levels(sources)
    total = 0
    for w in range(1, max(wave, default=0) + 1):
        jobs = [(int(problem.job[i, s]), int(problem.message[s])) for i, s in enumerate(sources) if wave[i] == w]
        longest, work = max(t for t, _ in jobs), sum(t for t, _ in jobs)
        slowest = problem.latency + max(m for _, m in jobs)
        total += problem.devices * slowest + max(problem.devices * longest, work)
    pairs = list(enumerate(sources))
    return Score(
        total,
        sum(int(problem.synapse_bytes[i, s]) for i, s in pairs),
        sum(int(problem.distance[i, s]) for i, s in pairs if s != problem.output),
    )


def counted(problem: Problem, sources: Sequence[int]) -> int:
    """Bytes that the budget is for."""
    return sum(int(problem.counted[i, s]) for i, s in enumerate(sources))


@dataclass(frozen=True, slots=True)
class Rung:
    """How fine kernels are: cells per axis of feature maps, and the rank between vectors (0: as `auto` chooses)."""

    cells: int
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Kernels:
    """Chooses kernels as `kernel: auto` does; `limit` is synapses.max_entries, `update` that of what hears the output.

    `memory` is the budget in bytes for all synapses, or None for the default, which is only for feature maps. Regions
    in `exact` hear the output through the model's own edge to it.
    """

    graph: RegionGraph
    batch: int
    limit: int
    update: str = "local_readout"
    memory: int | None = None
    exact: frozenset[str] = frozenset()

    def candidates(self) -> list[Region]:
        """Regions that need an error neither the loss nor a neighbour gives them."""
        regions = self.graph.regions.values()
        return [r for r in regions if r.learns and r.batched and r.name != self.graph.output]

    def pathway(self, source: Region, target: Region, rung: Rung) -> Pathway:
        """The pathway between two regions with the kernel of this rung, and its cost."""
        if target.name in self.exact:
            return costed(shaped("adjoint", target, source), target, source, self.batch, first=True)
        labelled = self.graph.reads_out(source.name)
        bare, reason = choose(target, source, labelled, rung.cells, self.limit)
        smaller = rung.rank * (target.size + source.size) < target.size * source.size
        if rung.rank and smaller and bare.kernel in ("dense", "low_rank") and rung.rank != bare.rank:
            bare, reason = shaped("low_rank", target, source, rank=rung.rank), "dense does not fit synapse_memory"
        update = self.update if labelled and self.update in updates_of(bare.kernel) else updates_of(bare.kernel)[0]
        if not labelled and update in ("local_readout", "local_loss"):
            update = "kolen_pollack"
        return costed(replace(bare, update=update, reason=reason), target, source, self.batch, first=True)


def problem(kernels: Kernels, rates: Rates, rung: Rung) -> Problem:
    """The costs of all regions with all the sources that they may hear, with the kernels of a rung."""
    graph, regions = kernels.graph, kernels.candidates()
    n = len(regions)
    output = graph.regions[graph.output]
    us = np.full((n, n + 1), np.inf)
    size = np.zeros((n, n + 1), np.int64)
    onto_maps = np.zeros((n, n + 1), bool)
    distance = np.zeros((n, n + 1), np.int64)
    number = {r.name: k for k, r in enumerate(regions)}
    seen: dict[tuple[object, ...], tuple[float, int]] = {}
    for i, target in enumerate(regions):
        hops: dict[str, int] = nx.single_source_shortest_path_length(graph.forward, target.name)
        down = [(number[s], k) for s, k in hops.items() if s in number and number[s] > i]
        down = [] if target.name in kernels.exact else down
        for s, far in [*down, (n, 0)]:
            source = output if s == n else regions[s]
            key = (*_look(target), *_look(source), s == n, target.name in kernels.exact)
            if key not in seen:
                seen[key] = _job(kernels.pathway(source, target, rung), target, source, rates)
            us[i, s], size[i, s] = seen[key]
            onto_maps[i, s] = bool(target.grid or source.grid)
            distance[i, s] = far
    sizes = [r.z_bytes for r in (*regions, output)]
    messages = np.array([rates.message(b) for b in sizes])
    every = kernels.memory is not None
    limit = kernels.memory or graph.memory
    tick = _tick(us, messages, rates)
    job = np.full((n, n + 1), FORBIDDEN, np.int64)
    possible = np.isfinite(us)
    job[possible] = np.rint(us[possible] / tick).astype(np.int64)
    return Problem(
        tuple(r.name for r in regions), rates.count, job, np.rint(messages / tick).astype(np.int64),
        round(rates.link_latency_us / tick), size, size if every else size * onto_maps, distance, limit, tick,
    )  # fmt: skip


def _look(r: Region) -> tuple[object, ...]:
    """What a kernel and its cost depend on."""
    return r.shape, r.channel_axis, r.window, r.norm, r.z_bytes, r.op == "Embedding"


def _job(p: Pathway, target: Region, source: Region, rates: Rates) -> tuple[float, int]:
    """Microseconds of a displacement and the target after it, and the bytes of the synapses."""
    stored = FLOAT_BYTES * p.synapses
    moved = source.input_bytes if p.edge else source.z_bytes + target.z_bytes + stored
    displacement = rates.task(p.flops, moved)
    return displacement + rates.task(0, 4 * target.z_bytes), stored


def _tick(us: NDArray[np.float64], messages: NDArray[np.float64], rates: Rates) -> float:
    """Microseconds of a tick: as fine as sums of whole numbers allow, a millionth of a microsecond at best."""
    longest = float(us[np.isfinite(us)].max(initial=1.0))
    n = len(us)
    most = (n + 1) * (longest + float(messages.max(initial=0.0)) + rates.link_latency_us) * max(1, rates.count)
    tick = 1e-6
    while most / tick > _ROOM:
        tick *= 10
    return tick
