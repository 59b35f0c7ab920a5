"""One pathway between two regions: its kernel, update and initial synapses, and what it costs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from reclra_compile.ir import EDGE_KERNELS, Pathway, Region
from reclra_compile.rules.catalogue import UPDATES_OF
from reclra_compile.spec.collect import Faults
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.spec.schema import Init, Kernel, PathwaySpec, Update, Wiring

Path = tuple[str | int, ...]


class Maker:
    """Makes the pathways of one entry of a wiring, and reports what does not fit."""

    def __init__(self, wiring: Wiring, graph: RegionGraph, faults: Faults, batch: int, k: int) -> None:
        self.graph, self.faults, self.batch = graph, faults, batch
        self.limit = wiring.synapses.max_entries
        self.spec: PathwaySpec = wiring.pathways[k]
        self.defaults = wiring.synapses
        self.kernel = self.spec.kernel or self.defaults.kernel
        self.edge = self.kernel.name in EDGE_KERNELS
        self.k = k

    def make(self, source: str, target: str, siblings: Collection[Pathway]) -> Pathway | None:
        """The pathway `source` → `target`; None where the kernel needs an edge of the model that is not there.

        `siblings` are the edge pathways that leave `source` already.
        """
        if self.edge and source not in self.graph.consumers(target):
            self.faults.add("W025", f"kernel {self.kernel.name} needs '{source}' to read the output of '{target}'",
                            "pathways", self.k, "from",
                            fix="use `from: consumers`, or a dense kernel")  # fmt: skip
            return None
        a, b = self.graph.regions[target], self.graph.regions[source]
        self._batched(a, b)
        kernel, reason = self._kernel(a, b)
        update = self._update(kernel, source)
        init = self._init(kernel, a, b)
        pathway = Pathway(
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
        )
        self._alike(pathway, siblings)
        return costed(pathway, a, b, self.batch, first=not siblings)

    def _at(self, part: str) -> Path:
        """Where the file gives the kernel, update or init of this entry."""
        return ("pathways", self.k, part) if getattr(self.spec, part) is not None else ("synapses", part)

    def _batched(self, *regions: Region) -> None:
        odd = [] if self.edge else [r.name for r in regions if not r.batched]
        if odd:
            self.faults.add("W032", f"the first dimension of '{odd[0]}' is not the batch, so error neurons cannot "
                            "be read sample by sample", "pathways", self.k,
                            fix="use `from: consumers` with `kernel: adjoint` there")  # fmt: skip

    def _kernel(self, a: Region, b: Region) -> tuple[Kernel, str]:
        kernel, entries = self.kernel, a.size * b.size
        if kernel.name == "dense" and entries > self.limit:
            self.faults.add("W030", f"a dense matrix '{b.name}' → '{a.name}' has {entries:,} entries, more than "
                            f"synapses.max_entries = {self.limit:,}", *self._at("kernel"),
                            fix="write 'kernel: {low_rank: 32}', or raise synapses.max_entries")  # fmt: skip
        if kernel.name != "auto":
            return kernel, ""
        if entries <= self.limit:
            return Kernel(name="dense"), ""
        rank = max(1, min(64, self.limit // (a.size + b.size)))
        return Kernel(name="low_rank", rank=rank), f"dense would have {entries:,} entries, more than {self.limit:,}"

    def _update(self, kernel: Kernel, source: str) -> Update:
        update, allowed = self.spec.update or self.defaults.update, UPDATES_OF[kernel.name]
        tied = self.spec.update is None and allowed == ("tied",)  # a default for synapses; a tied kernel has none
        if update.name == "auto" or tied:
            name = "local_readout" if "local_readout" in allowed and source == self.graph.output else allowed[0]
            return update.model_copy(update={"name": name})
        if update.name not in allowed:
            here = "" if self.spec.update else f"; give entry {self.k + 1} of the pathways its own `update:`"
            self.faults.add("W028", f"kernel {kernel.name} cannot have update '{update.name}'", *self._at("update"),
                            fix=f"{kernel.name} takes {' or '.join(allowed)}{here}")  # fmt: skip
        elif self.edge and update.gamma != 1.0:
            self.faults.add("W028", f"kernel {kernel.name} takes no gamma: its synapses get the forward update itself",
                            *self._at("update"), fix=f"write 'update: {update.name}'")  # fmt: skip
        elif update.name == "local_readout" and source != self.graph.output:
            self.faults.add("W029", f"local_readout cannot read out for '{source}': only the output region has labels",
                            *self._at("update"),
                            fix="write 'update: kolen_pollack' in entries that come from inner regions")  # fmt: skip
        return update

    def _init(self, kernel: Kernel, a: Region, b: Region) -> Init:
        init = self.spec.init or self.defaults.init
        if self.edge and kernel.name != "mirror":
            return Init(name="auto").model_copy(update={"name": "none"})
        if init.name == "auto":
            if kernel.name == "mirror":
                return Init(name="glorot")
            return Init(name="normal", scale=0.001) if b.name == self.graph.output else Init(name="fan_in")
        if init.name == "transpose":
            self._transposable(kernel, a, b)
        return init

    def _transposable(self, kernel: Kernel, a: Region, b: Region) -> None:
        plain = b.op == "Linear" and b.weight_count == a.size * b.size
        if kernel.name != "dense":
            reason = f"kernel {kernel.name} cannot start as a copy of a weight"
        elif not plain or b.name not in self.graph.consumers(a.name):
            reason = f"'{b.name}' is not one Linear layer that reads '{a.name}'"
        else:
            return
        self.faults.add("W031", f"init transpose: {reason}", *self._at("init"),
                        fix="use fan_in or glorot, or `kernel: transpose` along the model's edges")  # fmt: skip

    def _alike(self, p: Pathway, siblings: Collection[Pathway]) -> None:
        """One VJP serves all edge pathways that leave a region, so they are of one kind."""
        first = next(iter(siblings), p)
        if p.edge and kind(p) != kind(first):
            one, other = (f"{q.kernel} ({q.update}) to '{q.target}'" for q in (first, p))
            self.faults.add("W034", f"the edges that leave '{p.source}' are of two kinds: {one}, {other}",
                            "pathways", self.k, fix="give them the same kernel, update and init")  # fmt: skip


def kind(p: Pathway) -> tuple[str, str, str, float]:
    """What the edge pathways that leave one region have in common."""
    return p.kernel, p.update, p.init, p.scale


def costed(p: Pathway, a: Region, b: Region, batch: int, first: bool) -> Pathway:
    """The pathway from `b` to `a` with its stored entries and FLOPs; a region's VJP counts on its first edge."""
    if p.edge:
        stored = b.weight_count if p.kernel == "mirror" and first else 0
        return replace(p, synapses=stored, flops=b.input_flops if first else 0)
    entries = p.rank * (a.size + b.size) if p.kernel == "low_rank" else a.size * b.size
    once = 2 * batch * entries
    times = {"fixed": 0, "local_readout": 2}.get(p.update, 1)
    bias = b.size if p.update == "local_readout" else 0
    return replace(p, synapses=entries + bias, flops=once, update_flops=times * once)
