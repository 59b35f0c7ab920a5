"""Link a plan to live modules: region callables, synapses, and one closure per task."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import torch
from torch import Tensor, nn

from reclra_compile.errors import Fault, PlanError
from reclra_compile.frontend import ops
from reclra_compile.frontend.cut import Cut
from reclra_compile.frontend.extract import Piece, body, tail, whole
from reclra_compile.frontend.trace import Traced
from reclra_compile.ir import Pathway, Plan, Region
from reclra_compile.rules.catalogue import reads_out
from reclra_compile.rules.kernels import initial
from reclra_compile.rules.maps import Synapses, make
from reclra_compile.rules.targets import Elementwise
from reclra_compile.runtime import feedback
from reclra_compile.runtime.linked import Linked
from reclra_compile.runtime.loss import LossFunction
from reclra_compile.runtime.region import SplitRegion, WholeRegion
from reclra_compile.schedule.lower import whole_regions
from reclra_compile.spec.maps import matrix

TIED: dict[str, feedback.Tied] = {"transpose": "transpose", "sign": "sign"}  #: kernels that follow from the weights


def key(name: str) -> str:
    """A pathway's name as a module name (dots separate modules in torch)."""
    return name.replace(".", "/")


def link(
    plan: Plan,
    traced: Traced,
    cuts: tuple[Cut, ...],
    loss_fn: LossFunction,
    seed: int,
    reduction: str | None,
    only: frozenset[str] | None = None,
    device: torch.device | None = None,
) -> tuple[Linked, nn.Module]:
    """The plan's live counterpart and the module that holds its error synapses.

    Synapses are drawn region-wise: a pathway's initial values depend on `seed` and its name alone. With `only`,
    synapses and feedback weights of these regions alone are made, on `device`: other processes have the rest. Raises
    PlanError (P010) where plan and model disagree.
    """
    by_name = {c.name: c for c in cuts}
    missing = [r.name for r in plan.regions if r.name not in by_name]
    if missing:
        raise PlanError(Fault("P010", f"the model has no region '{missing[0]}': the plan belongs to another model"))
    linker = _Linker(plan, traced, by_name, seed, only, device)
    codes = {r.name: linker.region(r) for r in plan.regions}
    pathways = [p for p in plan.pathways if not p.edge and linker.here(p.target)]
    synapses = {p.name: linker.synapses(p) for p in pathways}
    biases = {p.name: linker.bias(p) for p in pathways if reads_out(p.update) or p.update == "autoencoding"}
    phis = {r.name: linker.target_phi(r) for r in plan.regions}
    linked = Linked(
        plan, loss_fn, codes, phis, synapses, biases, linker.modules, linker.mirrors, reduction=reduction,
        shared=only is not None,
    )  # fmt: skip
    holder = nn.Module()
    for name, module in synapses.items():
        if name in biases:
            module.register_parameter("b", biases[name])
        holder.add_module(key(name), module)
    for name, made in linker.feedback.items():
        mirror = nn.Module()
        for path, parameter in made.items():
            mirror.register_parameter(key(path), parameter)
        holder.add_module(key(f"mirror {name}"), mirror)
    for p in plan.pathways:
        if p.update == "fixed" and p.name in synapses:
            synapses[p.name].requires_grad_(False)
    return linked, holder


class _Linker:
    def __init__(
        self,
        plan: Plan,
        traced: Traced,
        cuts: dict[str, Cut],
        seed: int,
        only: frozenset[str] | None,
        device: torch.device | None,
    ) -> None:
        self.plan, self.traced, self.cuts, self.seed, self.only = plan, traced, cuts, seed, only
        self.regions = {r.name: r for r in plan.regions}
        self.targets = {t.region: t for t in plan.targets}
        self.whole = whole_regions(plan.targets, plan.pathways)
        self.feedback: dict[str, dict[str, nn.Parameter]] = {}
        self.modules: dict[str, tuple[nn.Module, ...]] = {}
        self.mirrors: dict[str, list[feedback.Mirror]] = {}
        self.edges: dict[str, list[Pathway]] = defaultdict(list)
        self.heard: dict[str, list[Pathway]] = defaultdict(list)
        for p in plan.pathways:
            if p.edge:
                self.edges[p.source].append(p)
                self.heard[p.target].append(p)
        self.outputs = {r.name: set(r.outputs) for r in plan.regions}
        example = next((p for p in traced.model.parameters() if p.is_floating_point()), torch.empty(0))
        self.like = torch.empty(0, dtype=example.dtype, device=example.device if device is None else device)

    def here(self, region: str) -> bool:
        """True for a region that this process runs."""
        return self.only is None or region in self.only

    def region(self, region: Region) -> WholeRegion | SplitRegion:
        """The executable form of one region."""
        cut = self.cuts[region.name]
        target = self.targets.get(region.name)
        wanted = {v for p in self.edges[region.name] for v in self.outputs[p.target]}
        listens = frozenset(k for k, v in enumerate(region.inputs) if v in wanted)
        undivided = target is None or region.name in self.whole
        piece = whole(self.traced, cut) if undivided else body(self.traced, cut)
        self.modules[region.name] = (piece.module,)
        trainable = target is not None and target.trainable
        learned = tuple(piece.module.parameters()) if trainable else ()
        learned += self._install(region, piece)
        rerun = piece.module if target is not None and target.recompute else None
        positions = {n: k for k, n in enumerate(cut.inputs)}
        inputs = tuple(positions[n] for n in piece.inputs)
        if target is None or undivided:
            return WholeRegion(piece.run, inputs, listens, learned, rerun)
        end = tail(self.traced, cut)
        if end is not None:
            self.modules[region.name] += (end.module,)
        phi = cut.phi[1] if cut.phi else None
        root = region.name == self.plan.waves[0][0]
        phi_graph = target.rule == "gradient" and (phi is not None or end is not None)
        return SplitRegion(
            piece.run,
            inputs,
            listens,
            learned,
            phi,
            end.run if end else None,
            tuple(positions[n] for n in end.inputs if n in positions) if end else (),
            phi_graph,
            end is not None and (phi_graph or bool(self.heard[region.name]) or root),
            rerun,
        )

    def _install(self, region: Region, piece: Piece) -> tuple[nn.Parameter, ...]:
        """Feedback weights for the region's edge kernels, installed in its graph; those that learn are returned."""
        kernels = {p.kernel for p in self.edges[region.name]}
        if not kernels or kernels == {"adjoint"} or not self.here(region.name):
            return ()
        first = self.edges[region.name][0]
        tied = TIED.get(first.kernel)
        listens = first.update == "kolen_pollack"
        made, mirrors = feedback.install(piece.module, tied, lambda path, W: self._mirror(first, path, W), listens)
        object.__setattr__(piece, "run", piece.module.forward)
        if made:
            self.feedback[region.name], self.mirrors[region.name] = made, mirrors
        if first.update == "fixed":
            for parameter in made.values():
                parameter.requires_grad_(False)
        return tuple(made.values()) if listens else ()

    def _mirror(self, p: Pathway, path: str, W: Tensor) -> nn.Parameter:
        E = initial(p.init, p.scale, W.shape[0], W[0].numel(), self._generator(f"mirror {p.source} {path}"))
        return nn.Parameter(E.view(W.shape).to(W))

    def synapses(self, p: Pathway) -> Synapses:
        """The initial synapses of a pathway, on the model's device and in its precision."""
        forward = self._forward_weight(p) if p.init == "transpose" else None
        module = make(p, self.regions[p.target], self.regions[p.source], self._generator(p.name), forward)
        return module.to(device=self.like.device, dtype=self.like.dtype)

    def bias(self, p: Pathway) -> nn.Parameter:
        """The bias of a local read-out (E9), or of a learned inverse, one per channel (E11); zero at first."""
        _, columns, _ = matrix(p, self.regions[p.target], self.regions[p.source])
        columns = self.regions[p.target].channels if p.update == "autoencoding" else columns
        return nn.Parameter(torch.zeros(columns, device=self.like.device, dtype=self.like.dtype))

    def _forward_weight(self, p: Pathway) -> Tensor:
        """The weight of the one Linear layer that the plan says lies between the two regions."""
        (weight,) = [w for w in body(self.traced, self.cuts[p.source]).module.parameters() if w.ndim > 1]
        return weight

    def _generator(self, name: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def target_phi(self, region: Region) -> Elementwise | None:
        """The activation a region's targets use; None for the identity."""
        target, cut = self.targets.get(region.name), self.cuts[region.name]
        if target is None or target.phi == "same":
            return cut.phi[1] if cut.phi else None
        return None if target.phi == "identity" else ops.ACTIVATIONS[target.phi]
