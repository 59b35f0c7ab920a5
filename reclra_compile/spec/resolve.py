"""Resolve a wiring against a model's regions: selectors become pathways and per-region targets.

Faults are collected; what comes out is a DAG rooted at the output in which each region that learns hears an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import networkx as nx

from reclra_compile.errors import Notice, WiringError
from reclra_compile.ir import Pathway, Target, Training
from reclra_compile.spec.checks import Pair, check_cycles, check_inverting, check_settling, check_sources
from reclra_compile.spec.collect import Faults
from reclra_compile.spec.graph import FLOAT_BYTES, RegionGraph
from reclra_compile.spec.load import Loaded
from reclra_compile.spec.maps import CELLS, cell_area
from reclra_compile.spec.parts import Selector
from reclra_compile.spec.schema import PathwaySpec, TargetSpec, TrainingSection, Wiring
from reclra_compile.spec.select import RELATIVE, select
from reclra_compile.spec.synapses import Maker, costed

CODES = {
    "W020": "a selector names a region, layer or activation that does not exist",
    "W021": "a selector selects no region",
    "W022": "the output region is targeted; its error comes from the loss",
    "W023": "the error pathways form a cycle",
    "W024": "two pathways connect the same two regions",
    "W025": "an edge kernel (adjoint, transpose, sign, mirror) needs an edge of the model",
    "W026": "a pathway comes from a region that hears no error itself",
    "W027": "a region with parameters hears no error",
    "W028": "the kernel cannot have this update",
    "W029": "local_readout needs a pathway from the output",
    "W030": "a dense matrix would be larger than synapses.max_entries",
    "W031": "init transpose needs one Linear layer between the two regions",
    "W032": "a region's first dimension is not the batch",
    "W034": "the edge pathways that leave a region are of two kinds",
    "W037": "no transposed convolution leads from one feature map to the other",
    "W041": "the error synapses do not fit synapses.memory",
    "W042": "autoencoding needs a pathway from a region that reads its target",
    "W043": "rule equilibrium does not go together with another rule, kernel or other options",
    "W044": "an inverse is learned from errors z − y as they are, not from normalised or weighed ones",
}


@dataclass(frozen=True)
class Resolved:
    """The error graph: per-region targets, pathways, waves, and the training settings that go with it.

    `notes` are warnings about parts of the wiring that have no effect on this model.
    """

    targets: tuple[Target, ...]
    pathways: tuple[Pathway, ...]
    waves: tuple[tuple[str, ...], ...]
    training: Training
    notes: tuple[Notice, ...] = ()


def resolve(loaded: Loaded, graph: RegionGraph, batch: int) -> Resolved:
    """Wire `graph` as `loaded` says; raises WiringError with every fault (W020–W034)."""
    return _Resolver(loaded, graph, batch).run()


#: what a wiring gets that says nothing: settings that were measured to train (docs/learning.md)
DEFAULT_TARGET = Target(region="", rule="lra", beta=0.01, normalize=True)
#: and one that only names another rule
DEFAULTS = {"difference_target": Target(region="", rule="difference_target"),
            "equilibrium": Target(region="", rule="equilibrium")}  # fmt: skip
#: the least share of nudging that comes to the first states by default: float32 has 7 digits, and errors shrink too
LEAST_SHARE = 1e-3
#: the options that a rule has, where it has not all but `settle`
OPTIONS = {"gradient": set(), "equilibrium": {"beta", "settle"}}


class _Resolver:
    def __init__(self, loaded: Loaded, graph: RegionGraph, batch: int) -> None:
        self.loaded, self.wiring, self.graph, self.batch = loaded, loaded.wiring, graph, batch
        self.faults = Faults(loaded)
        self.notes: list[Notice] = []
        self.pathways: dict[Pair, Pathway] = {}
        self.entry: dict[Pair, int] = {}
        self.edges: dict[str, list[Pathway]] = {}
        self.makers: dict[int, Maker] = {}
        self.complete = True  # false once an entry could not be followed: what its pathways reach is then unknown

    def run(self) -> Resolved:
        for k, spec in enumerate(self.wiring.pathways):
            self._entry(k, spec)
        self._fit()
        frozen = set(self._select(self.wiring.frozen, self.graph.regions, "frozen") if self.wiring.frozen else ())
        targets = self._targets(frozen)
        errors: nx.DiGraph[str] = nx.DiGraph()
        errors.add_node(self.graph.output)
        errors.add_edges_from(self.pathways)
        check_cycles(errors, self.entry, self.faults)
        check_settling(self.pathways, self.entry, targets, self.graph, self.faults)
        check_inverting(self.pathways, self.entry, targets, self.graph, self.faults)
        if self.complete:
            check_sources(errors, self.entry, self.graph, self.faults)
            self._check_silent(errors, frozen)
        if faults := self.faults.sorted():
            raise WiringError(faults)
        waves = waves_of(errors, self.graph.position)
        order = {n: i for i, n in enumerate(n for wave in waves for n in wave)}
        pathways = sorted(self.pathways.values(), key=lambda p: (order[p.target], order[p.source]))
        reached = tuple(targets[n] for n in order)
        return Resolved(reached, tuple(pathways), waves, self._training(), tuple(self.notes))

    def _select(
        self, selector: Selector, universe: Collection[str], *path: str | int, taken: Collection[str] | None = None
    ) -> list[str]:
        skip = RELATIVE if path[-1] == "from" else ()
        selected = select(selector, self.graph, universe, taken, skip)
        for p in selected.problems:
            if p.harmless and path[0] == "overrides":
                continue  # exceptions for what this model does not have
            if p.harmless and path[-1] == "to" and selector.every:
                entry = int(path[1]) + 1
                self.notes.append(Notice(f"entry {entry} of the pathways has no effect: {p.message}", "W101"))
                continue
            self.complete = self.complete and path[0] != "pathways"
            self.faults.add(p.code, p.message, *path, *p.at, fix=p.fix)
        return selected.regions

    # Pathways

    def _entry(self, k: int, spec: PathwaySpec) -> None:
        maker = self.makers[k] = Maker(self.wiring, self.graph, self.faults, self.batch, k)
        output = self.graph.output
        universe = [n for n, r in self.graph.regions.items() if n != output and (maker.edge or r.learns)]
        taken = frozenset(p.target for p in self.pathways.values())
        chosen = self._select(spec.to, universe, "pathways", k, "to", taken=taken)
        if output in chosen:
            self.faults.add("W022", f"'{output}' is the output region: its error comes from the loss",
                            "pathways", k, "to", fix="leave it out of 'to'")  # fmt: skip
        sources_of = self._sources(k, spec.source, maker.edge, taken)
        for target in chosen:
            for source in sources_of(target) if target != output else ():
                self._pathway(maker, source, target)

    def _sources(
        self, k: int, selector: Selector, edge: bool, taken: frozenset[str]
    ) -> Callable[[str], Collection[str]]:
        """The function from a target to the regions it hears."""
        fixed = self._select(selector, self.graph.regions, "pathways", k, "from")
        words = [w for w in selector.names or () if w in RELATIVE]
        readers = self.graph.consumers if edge else self.graph.learned_consumers
        relays = taken | {self.graph.output}

        def sources(target: str) -> Collection[str]:
            found = [*fixed]
            for word in words:
                if word == "relay":
                    found += self.graph.nearest_downstream(target, relays)
                else:
                    found += readers(target)[: 1 if word == "next" else None]
            return dict.fromkeys(found)

        return sources

    def _pathway(self, maker: Maker, source: str, target: str) -> None:
        pair = (source, target)
        if pair in self.pathways:
            first = self.loaded.where("pathways", self.entry[pair])
            self.faults.add("W024", f"'{source}' → '{target}' is wired twice; the first time at {first}", "pathways",
                            maker.k, fix="keep one of the two; 'to: rest' skips what is targeted above")  # fmt: skip
            return
        made = maker.make(source, target, self.edges.get(source, []))
        if made is None:
            self.complete = False
            return
        self.pathways[pair], self.entry[pair] = made, maker.k
        if made.edge:
            self.edges.setdefault(source, []).append(made)

    def _fit(self) -> None:
        """Choose coarser kernels for feature maps until what `auto` chose fits the memory for synapses."""
        chosen = {pair: self.makers[self.entry[pair]] for pair, p in self.pathways.items()
                  if self.makers[self.entry[pair]].kernel.name == "auto"}  # fmt: skip
        given = self.wiring.synapses.memory
        memory = given or self.graph.memory
        # a chain of vectors stores what the model itself stores; only a memory that was asked for limits it
        maps = [pair for pair in chosen if given or self._onto_maps(pair)]
        for cells in (c for c in CELLS if c < self.wiring.synapses.cells):
            need = FLOAT_BYTES * sum(self.pathways[pair].synapses for pair in maps)
            if need <= memory:
                return
            for pair in maps:
                finer = self.pathways[pair]
                p = chosen[pair].again(finer, cells)
                if (p.kernel, p.grid) != (finer.kernel, finer.grid):
                    why = f"{p.reason}; finer, all would take {need / 2**20:,.0f} MiB of {memory / 2**20:,.0f} MiB"
                    self.pathways[pair] = replace(p, reason=why)
        need = FLOAT_BYTES * sum(self.pathways[pair].synapses for pair in maps)
        if need > memory and given:  # what nobody asked for is no limit: the coarsest kernels are the answer
            self._thin([p for p in maps if self.pathways[p].kernel in ("dense", "low_rank")], chosen, need - memory)

    def _onto_maps(self, pair: Pair) -> bool:
        return any(self.graph.regions[name].grid for name in pair)

    def _thin(self, vectors: list[Pair], makers: Mapping[Pair, Maker], excess: int) -> None:
        """Give pathways between vectors the rank at which they save `excess` bytes, all in proportion."""
        stored = sum(self.pathways[pair].synapses for pair in vectors)
        share = 1 - excess / (FLOAT_BYTES * stored) if stored else 0.0
        if share <= 0:
            self.faults.add("W041", f"the error synapses need {excess / 2**20:,.1f} MiB more than synapses.memory even "
                            "at their coarsest", "synapses", "memory",
                            fix="raise synapses.memory, or wire fewer regions")  # fmt: skip
            return
        for pair in vectors:
            b, a = (self.graph.regions[name] for name in pair)
            rank = max(1, int(share * self.pathways[pair].synapses / (a.size + b.size)))
            thin = replace(self.pathways[pair], kernel="low_rank", rank=rank,
                           reason="dense matrices would not fit synapses.memory")  # fmt: skip
            self.pathways[pair] = costed(thin, a, b, self.batch, first=True)

    def _check_silent(self, errors: nx.DiGraph[str], frozen: set[str]) -> None:
        heard = set(errors) | frozen
        silent = [f"'{n}'" for n, r in self.graph.regions.items() if r.learns and n not in heard]
        if silent and self.loaded.unreached == "freeze":
            many = f"{len(silent)} regions that no error reaches do not learn, as asked: {silent[0]}, …"
            self.notes.append(Notice(many, "W102"))
        elif silent:
            shown = ", ".join(silent[:6]) + (f" and {len(silent) - 6} more" if len(silent) > 6 else "")
            self.faults.add("W027", f"no error reaches {shown}", "pathways",
                            fix="add {from: next, to: rest}, list what shall not learn under `frozen:`, or say "
                            "--unreached freeze or --unreached backprop")  # fmt: skip

    # Results

    def _targets(self, frozen: set[str]) -> dict[str, Target]:
        base = _apply(DEFAULT_TARGET, self.wiring.target)
        targets = {n: replace(base, region=n) for n in self.graph.regions}
        for k, override in enumerate(self.wiring.overrides):
            for name in self._select(override.regions, self.graph.regions, "overrides", k, "regions"):
                targets[name] = _apply(targets[name], override.target)
        targets[self.graph.output] = replace(DEFAULT_TARGET, rule="gradient")
        self._note_unused()
        return {n: self._target(t, n, n not in frozen) for n, t in targets.items()}

    def _target(self, t: Target, name: str, learns: bool) -> Target:
        """The options of `t` that its rule has, for region `name`."""
        trainable = learns and self.graph.regions[name].learns
        if t.rule == "gradient":
            return Target(region=name, rule=t.rule, trainable=trainable)
        if t.rule == "equilibrium":
            steps = self.graph.depth + 1  # what a state does has then come to all others
            return Target(
                name, t.rule, t.beta, trainable=trainable, free_steps=t.free_steps or steps + 2,
                nudged_steps=t.nudged_steps or steps, step=t.step, feedback=t.feedback or self._feedback(),
            )  # fmt: skip
        # A displacement spread over a pooled map is divided by the positions of a cell: β counts per cell, or
        # z − φ(h − βd) would be lost to rounding.
        here = self.graph.regions[name]
        areas = [cell_area(p, here) for p in self.pathways.values() if p.target == name] if t.normalize else []
        return replace(t, region=name, trainable=trainable, beta=t.beta * max(areas, default=1))

    def _feedback(self) -> float:
        """The weakest feedback, from 0.1 on, at which nudging is not lost to rounding on its way down."""
        return float(round(max(0.1, LEAST_SHARE ** (1 / max(1, self.graph.depth))), 3))

    def _note_unused(self) -> None:
        """Options that a rule does not have do nothing: say so."""
        default = self.wiring.target.rule or DEFAULT_TARGET.rule
        for spec in (self.wiring.target, *(o.target for o in self.wiring.overrides)):
            rule = spec.rule or default
            given = set(spec.model_dump(exclude_none=True, exclude={"rule"}))
            unused = sorted(given - OPTIONS[rule] if rule in OPTIONS else given & {"settle"})
            if unused:
                self.notes.append(Notice(f"{', '.join(unused)}: no effect under target rule {rule}", "W103"))

    def _training(self) -> Training:
        section = self.wiring.training if isinstance(self.wiring, Wiring) else TrainingSection()
        phis = [self.graph.regions[n].phi for n in self.graph.layers[:-1]]
        phi = max(sorted(set(phis)), key=phis.count, default="identity")
        settings: dict[str, float | int | str] = {}
        for part in (section, section.phi.get(phi)):
            if part is not None:
                settings |= {k: v for k, v in part.model_dump(exclude={"phi"}).items() if v is not None}
        return replace(Training(), **settings)  # type: ignore[arg-type]


def waves_of(errors: nx.DiGraph[str], position: Mapping[str, int]) -> tuple[tuple[str, ...], ...]:
    """Generations of the error graph, the region nearest to the output first in each."""
    return tuple(
        tuple(sorted(wave, key=lambda n: -position[n])) for wave in nx.topological_generations(errors)
    )


def _apply(target: Target, spec: TargetSpec) -> Target:
    """`target` with the options that are given; another rule begins from its own defaults."""
    given = spec.model_dump(exclude_none=True)
    settle = given.pop("settle", {})
    names = {"free": "free_steps", "nudged": "nudged_steps"}
    if spec.rule not in (None, target.rule):
        target = replace(DEFAULTS.get(str(spec.rule), DEFAULT_TARGET), region=target.region)
    return replace(target, **given, **{names.get(k, k): v for k, v in settle.items()})
