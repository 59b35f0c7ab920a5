"""One pathway between two regions: its kernel, update and initial synapses, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from reclra_compile.ir import EDGE_KERNELS, Pathway, Region
from reclra_compile.rules.catalogue import NOISE, can_have, reads_out, updates_of
from reclra_compile.spec.collect import Faults
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.spec.maps import CELLS, DEFAULT_CELLS, common, geometry, matrix, pooled, window_of
from reclra_compile.spec.parts import Init, Update
from reclra_compile.spec.schema import InnerWiring, PathwaySpec

Path = tuple[str | int, ...]


class Maker:
    """Makes the pathways of one entry of a wiring, and reports what does not fit."""

    def __init__(self, wiring: InnerWiring, graph: RegionGraph, faults: Faults, batch: int, k: int) -> None:
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
        bare, reason = self._kernel(a, b, self.defaults.cells)
        update = self._update(bare.kernel, source)
        init = self._init(bare.kernel, a, b)
        pathway = replace(
            bare,
            update=update.name,
            init=init.name,
            scale=init.scale,
            gamma=update.gamma,
            growth_limit=update.growth_limit if update.name == "lra" else 0.0,
            noise=NOISE.get(update.name, 0.0) if update.noise is None else update.noise,
            reason=reason,
        )
        self._invertible(pathway)
        self._alike(pathway, siblings)
        return costed(pathway, a, b, self.batch, first=not siblings)

    def again(self, p: Pathway, cells: int) -> Pathway:
        """The pathway with what `auto` chooses where feature maps get at most `cells` per axis."""
        a, b = self.graph.regions[p.target], self.graph.regions[p.source]
        bare, reason = choose(a, b, self.graph.reads_out(b.name), cells, self.limit, self._pointwise())
        kept = replace(p, kernel=bare.kernel, rank=bare.rank, grid=bare.grid, source_grid=bare.source_grid,
                       window=bare.window, reason=reason)  # fmt: skip
        return costed(kept, a, b, self.batch, first=True)

    def _pointwise(self) -> bool:
        """False where E is an inverse: a source that mixes positions is not undone position by position."""
        return (self.spec.update or self.defaults.update).name != "autoencoding"

    def _at(self, part: str) -> Path:
        """Where the file gives the kernel, update or init of this entry."""
        return ("pathways", self.k, part) if getattr(self.spec, part) is not None else ("synapses", part)

    def _batched(self, *regions: Region) -> None:
        odd = [] if self.edge else [r.name for r in regions if not r.batched]
        if odd:
            self.faults.add("W032", f"the first dimension of '{odd[0]}' is not the batch, so error neurons cannot "
                            "be read sample by sample", "pathways", self.k,
                            fix="use `from: consumers` with `kernel: adjoint` there")  # fmt: skip

    def _kernel(self, a: Region, b: Region, cells: int) -> tuple[Pathway, str]:
        """A pathway that has only its kernel yet, and why `auto` chose it; reports what does not fit."""
        kernel = self.kernel
        if kernel.name == "auto":
            return choose(a, b, self.graph.reads_out(b.name), cells, self.limit, self._pointwise())
        bare = shaped(kernel.name, a, b, kernel.cells or DEFAULT_CELLS, kernel.rank)
        if kernel.name in ("dense", "spatial", "channel"):
            rows, columns, _ = matrix(bare, a, b)
            entries = rows * columns
            if entries > self.limit:
                self.faults.add("W030", f"a {kernel.name} matrix '{b.name}' → '{a.name}' has {entries:,} entries, more "
                                f"than synapses.max_entries = {self.limit:,}", *self._at("kernel"),
                                fix="write 'kernel: {low_rank: 32}', or raise synapses.max_entries")  # fmt: skip
        if kernel.name == "conv" and not convolvable(bare, a, b):
            self.faults.add("W037", f"no transposed convolution leads from '{b.name}' {_shape(b)} to '{a.name}' "
                            f"{_shape(a)}", *self._at("kernel"),
                            fix="use it between neighbouring feature maps; 'kernel: auto' finds what fits")  # fmt: skip
        return bare, ""

    def _update(self, kernel: str, source: str) -> Update:
        update, allowed = self.spec.update or self.defaults.update, updates_of(kernel)
        tied = self.spec.update is None and allowed == ("tied",)  # a default for synapses; a tied kernel has none
        if reads_out(update.name) and source == self.graph.output and not self.graph.labelled:
            return Update(name=allowed[0], gamma=update.gamma)  # a block's output has no labels to read out
        if update.name == "auto" or tied:
            name = "local_readout" if "local_readout" in allowed and self.graph.reads_out(source) else allowed[0]
            return update.model_copy(update={"name": name})
        if not can_have(kernel, update.name):
            here = "" if self.spec.update else f"; give entry {self.k + 1} of the pathways its own `update:`"
            self.faults.add("W028", f"kernel {kernel} cannot have update '{update.name}'", *self._at("update"),
                            fix=f"{kernel} takes {' or '.join(allowed)}{here}")  # fmt: skip
        elif self.edge and update.gamma != 1.0:
            self.faults.add("W028", f"kernel {kernel} takes no gamma: its synapses get the forward update itself",
                            *self._at("update"), fix=f"write 'update: {update.name}'")  # fmt: skip
        elif reads_out(update.name) and not self.graph.reads_out(source):
            self.faults.add("W029", f"{update.name} cannot read out for '{source}': only the output region has labels",
                            *self._at("update"),
                            fix="write 'update: kolen_pollack' in entries that come from inner regions")  # fmt: skip
        return update

    def _invertible(self, p: Pathway) -> None:
        """An inverse is learned of one region's forward pass."""
        if p.update == "autoencoding" and p.source not in self.graph.consumers(p.target):
            self.faults.add("W042", f"'{p.source}' does not read '{p.target}', so there is no forward pass between "
                            "them for autoencoding to undo", *self._at("update"),
                            fix="use `from: next` between regions that follow each other, with neither a frozen layer "
                            "nor an operation without parameters between them, and kernel adjoint from the output; "
                            "`regions: {merge: …}` joins regions")  # fmt: skip

    def _init(self, kernel: str, a: Region, b: Region) -> Init:
        init = self.spec.init or self.defaults.init
        if self.edge and kernel != "mirror":
            return Init(name="auto").model_copy(update={"name": "none"})
        if init.name == "auto":
            if kernel == "mirror":
                return Init(name="glorot")
            return Init(name="normal", scale=0.001) if self.graph.reads_out(b.name) else Init(name="fan_in")
        if init.name == "transpose":
            self._transposable(kernel, a, b)
        return init

    def _transposable(self, kernel: str, a: Region, b: Region) -> None:
        plain = b.op == "Linear" and b.weight_count == a.size * b.size
        filters = b.op == "Conv2d" and b.weight_count == a.channels * b.channels * math.prod(b.window)
        if kernel == "conv" and filters and b.name in self.graph.consumers(a.name):
            return
        if kernel != "dense":
            reason = f"kernel {kernel} cannot start as a copy of a weight"
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


def shaped(kernel: str, a: Region, b: Region, cells: int = 0, rank: int = 0) -> Pathway:
    """The pathway `b` → `a` with a kernel and the grids or window it works on."""
    bare = Pathway(f"{b.name}->{a.name}", b.name, a.name, kernel, "fixed", rank=rank)
    if kernel == "spatial":
        return replace(bare, grid=pooled(a.grid, cells), source_grid=pooled(b.grid, cells))
    if kernel == "channel":
        grid, source_grid = common(a.grid, b.grid)
        return replace(bare, grid=grid, source_grid=source_grid)
    if kernel == "conv":
        return replace(bare, window=window_of(b, len(a.grid)))
    return bare


def choose(
    a: Region, b: Region, labelled: bool, cells: int, limit: int, pointwise: bool = True
) -> tuple[Pathway, str]:
    """What `auto` takes for the pathway `b` → `a`, and why; feature maps get at most `cells` per axis.

    Where `pointwise` is false, maps are not taken to correspond position by position.
    """
    if not a.grid and not b.grid:
        if a.size * b.size <= limit:
            return shaped("dense", a, b), ""
        rank = max(1, min(64, limit // (a.size + b.size)))
        return shaped("low_rank", a, b, rank=rank), (
            f"dense would have {a.size * b.size:,} entries, more than {limit:,}"
        )
    if len(a.grid) == len(b.grid):
        if labelled or (pointwise and a.grid == b.grid and not b.window):
            return shaped("channel", a, b), "both are maps, which correspond position by position"
        conv = shaped("conv", a, b)
        if b.window and not b.norm and convolvable(conv, a, b):
            return conv, "both are feature maps, and a transposed convolution leads from one to the other"
    for k in (cells, *(c for c in CELLS if c < cells)):
        if k == 1:
            break
        bare = shaped("spatial", a, b, k)
        rows, columns, _ = matrix(bare, a, b)
        if rows * columns <= limit:
            return bare, f"a feature map is read on at most {k} cells per axis"
    bare = shaped("channel", a, b)
    if bare.grid != tuple(1 for _ in a.grid):  # maps of unlike windows or norms: as wholes
        bare = replace(bare, grid=tuple(1 for _ in a.grid), source_grid=tuple(1 for _ in b.grid))
    return bare, "a feature map is read on one cell per channel"


def convolvable(p: Pathway, a: Region, b: Region) -> bool:
    """True where a transposed convolution leads from the map of `b` to that of `a`."""
    return not a.channel_axis and not b.channel_axis and geometry(a.grid, b.grid, p.window) is not None


def _shape(r: Region) -> str:
    return "×".join(map(str, r.shape)) or "1"


def costed(p: Pathway, a: Region, b: Region, batch: int, first: bool) -> Pathway:
    """The pathway from `b` to `a` with its stored entries and FLOPs; a region's VJP counts on its first edge."""
    if p.edge:
        stored = b.weight_count if p.kernel == "mirror" and first else 0
        # mirror mode: noise through the forward weights, and the correlation of the two
        learned = 4 * batch * stored if p.update == "weight_mirror" else 0
        return replace(p, synapses=stored, flops=b.input_flops if first else 0, update_flops=learned)
    rows, columns, cells = matrix(p, a, b)
    entries = p.rank * (rows + columns) if p.kernel == "low_rank" else rows * columns
    once = 2 * batch * cells * entries
    # the factors of low_rank get an update each, which takes two products
    products = 2 if p.kernel == "low_rank" else 1
    times = {"fixed": 0, "local_readout": 1 + products, "autoencoding": 1 + products}.get(p.update, products)
    bias = columns if reads_out(p.update) else a.channels if p.update == "autoencoding" else 0
    # displacements that begin with the read-out, and differences of two inversions
    differs = p.update == "autoencoding" and a.phi != "identity"
    reads = 2 if p.update == "local_loss" or differs else 1
    again = b.forward_flops if p.update == "autoencoding" else 0  # noise through the source's forward pass
    return replace(p, synapses=entries + bias, flops=reads * once, update_flops=times * once + again)
