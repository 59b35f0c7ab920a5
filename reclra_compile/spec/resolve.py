"""Resolve a wiring against a model's regions: selectors become pathways and per-region targets.

Every fault is collected; the wiring that comes out is a DAG rooted at the output region in which
each region that learns hears an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import networkx as nx

from reclra_compile.errors import Fault, WiringError
from reclra_compile.ir import EDGE_KERNELS, OUTPUT, Pathway, Region, Target, Training
from reclra_compile.rules.catalogue import UPDATES_OF
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.spec.load import Loaded
from reclra_compile.spec.schema import Init, Kernel, PathwaySpec, Selector, TargetSpec, Update
from reclra_compile.spec.select import SelectionError, select

CODES = {
    "W020": "a selector names a region that the model does not have",
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
}


@dataclass(frozen=True)
class Resolved:
    """The error graph: per-region targets, pathways, waves, and the training settings that go with it."""

    targets: tuple[Target, ...]
    pathways: tuple[Pathway, ...]
    waves: tuple[tuple[str, ...], ...]
    training: Training


def resolve(loaded: Loaded, graph: RegionGraph, batch: int) -> Resolved:
    """Wire `graph` as `loaded` says; raises WiringError with every fault (W020–W032)."""
    return _Resolver(loaded, graph, batch).run()


class _Resolver:
    def __init__(self, loaded: Loaded, graph: RegionGraph, batch: int) -> None:
        self.loaded, self.wiring, self.graph, self.batch = loaded, loaded.wiring, graph, batch
        self.faults: list[Fault] = []
        self.pathways: dict[tuple[str, str], Pathway] = {}
        self.entry: dict[tuple[str, str], int] = {}

    def run(self) -> Resolved:
        for k, spec in enumerate(self.wiring.pathways):
            self._entry(k, spec)
        frozen = set(self._select(self.wiring.frozen, tuple(self.graph.regions), "frozen"))
        targets = self._targets(frozen)
        waves = self._waves(frozen)
        if self.faults:
            raise WiringError(self.faults)
        order = {n: i for i, n in enumerate(n for wave in waves for n in wave)}
        pathways = sorted(self.pathways.values(), key=lambda p: (order[p.target], order[p.source]))
        reached = tuple(targets[n] for wave in waves for n in wave)
        return Resolved(reached, tuple(pathways), waves, self._training())

    def _fault(self, code: str, message: str, *path: str | int, fix: str = "") -> None:
        self.faults.append(Fault(code, message, self.loaded.where(*path), fix))

    def _select(
        self, selector: Selector | None, universe: Iterable[str], *path: str | int, taken: Iterable[str] = ()
    ) -> list[str]:
        if selector is None:
            return []
        try:
            return select(selector, self.graph, tuple(universe), tuple(taken))
        except SelectionError as error:
            if not (error.code == "W021" and path[0] == "overrides"):  # an exception that matches nothing is harmless
                self._fault(error.code, str(error), *path, fix=error.fix)
            return []

    # Pathways

    def _entry(self, k: int, spec: PathwaySpec) -> None:
        kernel = spec.kernel or self.wiring.synapses.kernel
        edge = kernel.name in EDGE_KERNELS
        universe = [n for n, r in self.graph.regions.items() if n != self.graph.output and (edge or r.parameters)]
        taken = [p.target for p in self.pathways.values()]
        chosen = self._select(spec.to, universe, "pathways", k, "to", taken=taken)
        if self.graph.output in chosen:
            self._fault("W022", f"'{self.graph.output}' is the output region: its error comes from the loss",
                        "pathways", k, "to", fix="leave it out of 'to'")  # fmt: skip
        for target in chosen:
            if target != self.graph.output:
                for source in self._sources(k, spec.source, target, edge, taken):
                    self._pathway(k, spec, kernel, source, target)

    def _sources(self, k: int, selector: Selector, target: str, edge: bool, taken: list[str]) -> list[str]:
        readers = self.graph.consumers(target) if edge else self.graph.learned_consumers(target)
        word = selector.names[0] if selector.names and len(selector.names) == 1 else ""
        if word == "next":
            return readers[:1]
        if word == "consumers":
            return readers
        if word == "relay":
            return [next(n for n in self.graph.downstream(target) if n in taken or n == self.graph.output)]
        if word == OUTPUT:
            return [self.graph.output]
        before = len(self.faults)
        found = self._select(selector, self.graph.regions, "pathways", k, "from")
        self.faults[before:] = [f for f in self.faults[before:] if f not in self.faults[:before]]
        return found

    def _pathway(self, k: int, spec: PathwaySpec, kernel: Kernel, source: str, target: str) -> None:
        pair = (source, target)
        if pair in self.pathways:
            first = self.loaded.where("pathways", self.entry[pair])
            self._fault("W024", f"'{source}' → '{target}' is wired twice (also at {first})", "pathways", k,
                        fix="keep one of the two; 'rest' skips regions that are already targeted")  # fmt: skip
            return
        if kernel.name in EDGE_KERNELS and source not in self.graph.consumers(target):
            self._fault("W025", f"kernel {kernel.name} needs '{source}' to read the output of '{target}'",
                        "pathways", k, fix="use `from: consumers`, or a dense kernel")  # fmt: skip
            return
        a, b = self.graph.regions[target], self.graph.regions[source]
        if kernel.name not in EDGE_KERNELS:
            for region in (a, b):
                if not region.batched:
                    self._fault("W032", f"the first dimension of '{region.name}' is not the batch", "pathways", k,
                                fix="use `kernel: adjoint` there")  # fmt: skip
        kernel, reason = self._kernel(k, kernel, a, b)
        update = self._update(k, spec.update or self.wiring.synapses.update, kernel, source)
        init = self._init(k, spec.init or self.wiring.synapses.init, kernel, a, b)
        self.entry[pair] = k
        self.pathways[pair] = _costed(
            Pathway(
                name=f"{source}->{target}",
                source=source,
                target=target,
                kernel=kernel.name,
                update=update.name,
                init=init.name,
                scale=init.scale,
                gamma=update.gamma,
                growth_limit=update.growth_limit if update.name == "lra" else 0.0,
                rank=kernel.rank,
                reason=reason,
            ),
            a,
            b,
            self.batch,
            first=not any(s == source and p.edge for (s, _), p in self.pathways.items()),
        )

    def _kernel(self, k: int, kernel: Kernel, a: Region, b: Region) -> tuple[Kernel, str]:
        entries, limit = a.size * b.size, self.wiring.synapses.max_entries
        if kernel.name == "dense" and entries > limit:
            self._fault("W030", f"a dense matrix '{b.name}' → '{a.name}' has {entries:,} entries, more than {limit:,}",
                        "pathways", k, "kernel",
                        fix="use {low_rank: 32}, or raise synapses.max_entries")  # fmt: skip
        if kernel.name != "auto":
            return kernel, ""
        if entries <= limit:
            return Kernel(name="dense"), ""
        rank = max(1, min(64, limit // (a.size + b.size)))
        return Kernel(name="low_rank", rank=rank), f"dense would have {entries:,} entries, more than {limit:,}"

    def _update(self, k: int, update: Update, kernel: Kernel, source: str) -> Update:
        allowed = UPDATES_OF[kernel.name]
        if update.name == "auto":
            name = "local_readout" if "local_readout" in allowed and source == self.graph.output else allowed[0]
            return update.model_copy(update={"name": name})
        if update.name not in allowed:
            self._fault("W028", f"kernel {kernel.name} cannot have update '{update.name}'", "pathways", k,
                        fix=f"updates of {kernel.name}: {', '.join(allowed)}")  # fmt: skip
        if update.name == "local_readout" and source != self.graph.output:
            self._fault("W029", f"local_readout on '{source}': only the output's error comes with the labels",
                        "pathways", k, fix="use kolen_pollack between inner regions")  # fmt: skip
        return update

    def _init(self, k: int, init: Init, kernel: Kernel, a: Region, b: Region) -> Init:
        if kernel.name in EDGE_KERNELS and kernel.name != "mirror":
            return Init(name="auto").model_copy(update={"name": "none"})
        if init.name == "auto":
            if kernel.name == "mirror":
                return Init(name="glorot")
            return Init(name="normal", scale=0.001) if b.name == self.graph.output else Init(name="fan_in")
        plain = b.op == "Linear" and b.weight_count == a.size * b.size
        if init.name == "transpose" and not (
            plain and kernel.name == "dense" and b.name in self.graph.consumers(a.name)
        ):
            self._fault("W031", f"init transpose: '{b.name}' is not one Linear layer that reads '{a.name}'",
                        "pathways", k, fix="use fan_in or glorot")  # fmt: skip
        return init

    # Targets and waves

    def _targets(self, frozen: set[str]) -> dict[str, Target]:
        base = _apply(Target(region="", rule="lra"), self.wiring.target)
        targets = {n: replace(base, region=n) for n in self.graph.regions}
        for k, override in enumerate(self.wiring.overrides):
            for name in self._select(override.regions, self.graph.regions, "overrides", k, "regions"):
                targets[name] = _apply(targets[name], override.target)
        targets[self.graph.output] = Target(region=self.graph.output, rule="gradient")
        return {
            n: replace(t, trainable=bool(self.graph.regions[n].parameters) and n not in frozen)
            for n, t in targets.items()
        }

    def _waves(self, frozen: set[str]) -> tuple[tuple[str, ...], ...]:
        errors: nx.DiGraph[str] = nx.DiGraph()
        errors.add_node(self.graph.output)
        errors.add_edges_from(self.pathways)
        try:
            cycle = [u for u, _ in nx.find_cycle(errors)]
        except nx.NetworkXNoCycle:
            cycle = []
        if cycle:
            self._fault("W023", "the pathways form a cycle: " + " → ".join([*cycle, cycle[0]]), "pathways",
                        fix="every chain of pathways has to start at the output")  # fmt: skip
            return ()
        reached = {self.graph.output} | nx.descendants(errors, self.graph.output)
        for (source, target), k in self.entry.items():
            if source not in reached:
                self._fault("W026", f"'{target}' hears '{source}', which hears no error itself", "pathways", k,
                            fix=f"add a pathway to '{source}'")  # fmt: skip
        silent = [
            n for n, r in self.graph.regions.items() if r.parameters and n not in set(errors) and n not in frozen
        ]
        if silent:
            shown = ", ".join(f"'{n}'" for n in silent[:6]) + (f" and {len(silent) - 6} more" if len(silent) > 6 else "")
            self._fault("W027", f"no error reaches {shown}", "pathways",
                        fix="add `{from: next, to: rest}`, or list them under `frozen:`")  # fmt: skip
        last_first = {n: -i for n, i in self.graph.position.items()}
        return tuple(
            tuple(sorted((n for n in wave if n in reached), key=last_first.__getitem__))
            for wave in nx.topological_generations(errors)
        )

    def _training(self) -> Training:
        section = self.wiring.training
        phis = [self.graph.regions[n].phi for n in self.graph.layers[:-1]]
        phi = max(sorted(set(phis)), key=phis.count, default="identity")
        settings: dict[str, float | int | str] = {}
        for part in (section, section.phi.get(phi)):
            if part is not None:
                settings |= {k: v for k, v in part.model_dump(exclude={"phi"}).items() if v is not None}
        return replace(Training(), **settings)  # type: ignore[arg-type]


def _apply(target: Target, spec: TargetSpec) -> Target:
    return replace(target, **spec.model_dump(exclude_none=True))


def _costed(p: Pathway, a: Region, b: Region, batch: int, first: bool) -> Pathway:
    """The pathway with its stored entries and FLOPs; an edge's VJP is counted on the source's first edge."""
    if p.kernel in EDGE_KERNELS:
        stored = b.weight_count if p.kernel == "mirror" and first else 0
        return replace(p, synapses=stored, flops=b.input_flops if first else 0)
    entries = p.rank * (a.size + b.size) if p.kernel == "low_rank" else a.size * b.size
    once = 2 * batch * entries
    times = {"fixed": 0, "local_readout": 2}.get(p.update, 1)
    bias = b.size if p.update == "local_readout" else 0
    return replace(p, synapses=entries + bias, flops=once, update_flops=times * once)
