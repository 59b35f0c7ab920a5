"""One probe: everything that is measured on one batch, without a trace left in model, synapses or optimizer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reclra_compile.diagnose.facts import Probe, RegionFacts
from reclra_compile.diagnose.feasible import target_facts
from reclra_compile.diagnose.observe import Observer, device_of
from reclra_compile.ir import Region
from reclra_compile.rules.catalogue import reads_out
from reclra_compile.runtime.link import key
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.region import SplitRegion

Batch = tuple[tuple[Tensor, ...], Tensor]
Gradients = dict[str, Tensor | None]
CONSTANT = 1e-6  #: a unit whose activity varies by less than this, relative to its size, is dead


@dataclass
class Bench:
    """The program under test, the probe batch, how the model is called on its inputs, and the step's rate."""

    program: Program
    batch: Batch
    forward: Callable[[tuple[Tensor, ...]], Tensor]
    rate: float

    def probe(self, step: int, lr: float, initial: Mapping[str, float]) -> Probe:
        """Measure after `step` steps; `initial` gives the first norms of the synapses by region."""
        program, (inputs, y) = self.program, self.batch
        observer = Observer(program)
        with self._undisturbed() as rewind, torch.no_grad():
            loss = observer.step(*inputs, y)
            discrepancy = program.discrepancy
            own = self._gradients()
            rewind()
            true = self._backprop()
            moved = self._moved(observer)
        norms = synapse_norms(program)
        regions = [
            replace(
                self._region(r, observer, own, true, moved.get(r.name)),
                discrepancy=discrepancy.regions.get(r.name),
                synapse_norm=(norm := norms.get(r.name)),
                synapse_growth=norm / (initial.get(r.name) or norm) if norm else None,
            )
            for r in program.plan.regions
        ]
        return Probe(step, loss, lr, discrepancy.total, tuple(regions))

    def _region(
        self, region: Region, observer: Observer, own: Gradients, true: Gradients, moved: Tensor | None
    ) -> RegionFacts:
        seen = observer.seen[region.name]
        target, phi = observer.linked.targets.get(region.name), observer.linked.target_phi[region.name]
        parameters = {n: p for n, p in _named(self.program.model).items() if n in region.parameters}
        a, b = (_joined(g, parameters) for g in (own, true))
        feasible = None
        if target is not None and seen.h is not None and seen.d is not None and seen.z is not None:
            feasible = target_facts(target, phi, seen.z, seen.h, seen.d, moved)
        return RegionFacts(
            region.name,
            angle=angle(a, b) if a is not None and b is not None else None,
            update=None if a is None else float(a.norm()),
            gradient=None if b is None else float(b.norm()),
            error=_rms(seen.e),
            activity=_rms(seen.z),
            dead=None if seen.z is None else dead(seen.z, region),
            readout_loss=self._readout_loss(region, observer),
            target=feasible,
        )

    def _gradients(self) -> Gradients:
        """The gradients that the step has left, by the parameters' names."""
        return {name: p.grad for name, p in _named(self.program.model).items()}

    def _backprop(self) -> Gradients:
        """Autograd's gradients of the same loss on the same batch."""
        inputs, y = self.batch
        named = {n: p for n, p in _named(self.program.model).items() if p.requires_grad}
        with torch.enable_grad():
            loss = self.program.loss_fn(self.forward(inputs), y)
            grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return dict(zip(named, grads, strict=True))

    def _moved(self, observer: Observer) -> dict[str, Tensor]:
        """h of each region after a plain step W − rate · ΔW, from the inputs that it has now."""
        for p in self.program.model.parameters():
            if p.grad is not None:
                p.sub_(p.grad, alpha=self.rate)
        after = {r.name: observer.again(r) for r in self.program.plan.regions if r.learns}
        return {name: h for name, h in after.items() if h is not None}

    def _readout_loss(self, region: Region, observer: Observer) -> float | None:
        """The loss of the region's own read-out (E9) of its activities; None where it has none."""
        linked, z = observer.linked, observer.seen[region.name].z
        root = linked.codes[linked.root]
        for p in self.program.plan.pathways:
            if p.target == region.name and reads_out(p.update) and z is not None and isinstance(root, SplitRegion):
                with torch.no_grad():
                    r = linked.synapses[p.name].read(z, linked.biases[p.name])
                    r = r.view(-1, *linked.regions[linked.root].shape)
                    return float(self.program.loss_fn(root.head(r), self.batch[1]))
        return None

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[Callable[[], None]]:
        """Afterwards weights, gradients, buffers and random state are as before.

        The function that it gives sets buffers and random state back in between.
        """
        program, device = self.program, device_of(self.program)
        both = (program.model, program.synapses)
        parameters = list(dict.fromkeys(p for m in both for p in m.parameters()))
        weights, grads = [p.detach().clone() for p in parameters], [p.grad for p in parameters]
        buffers = [(b, b.detach().clone()) for m in both for b in m.buffers()]
        program.zero_grad()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            state = (torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

            def rewind() -> None:
                torch.set_rng_state(state[0])
                if state[1] is not None:
                    torch.cuda.set_rng_state(state[1], device)
                with torch.no_grad():
                    for buffer, value in buffers:
                        buffer.copy_(value)

            try:
                yield rewind
            finally:
                rewind()
                with torch.no_grad():
                    for p, value, grad in zip(parameters, weights, grads, strict=True):
                        p.copy_(value)
                        p.grad = grad


def synapse_norms(program: Program) -> dict[str, float]:
    """‖E‖ over all synapses that lead into a region, by region; those tied to the model's weights have none."""
    held = dict(program.synapses.named_children())
    squares: dict[str, float] = {}
    for p in program.plan.pathways:
        module = held.get(key(p.name)) or held.get(key(f"mirror {p.source}"))
        if module is not None:
            entries = [e for name, e in module.named_parameters() if name != "b"]
            own = sum(float(e.detach().double().square().sum()) for e in entries)
            squares[p.target] = squares.get(p.target, 0.0) + own
    return {name: math.sqrt(total) for name, total in squares.items()}


def angle(a: Tensor, b: Tensor) -> float | None:
    """The angle between two vectors in degrees; None where one is zero."""
    size, length = a.norm(), b.norm()
    if not size or not length:
        return None
    u, v = a / size, b / length
    return math.degrees(2.0 * math.atan2(float((u - v).norm()), float((u + v).norm())))


def dead(z: Tensor, region: Region) -> float:
    """Share of units whose activity is the same for all samples; a unit of a feature map is a channel."""
    if z.ndim > 2 and z.ndim == len(region.shape) + 1:
        z = z.movedim(1 + region.channel_axis, -1).flatten(0, -2)
    units = z.reshape(len(z), -1).double()
    high, low = units.amax(0), units.amin(0)
    return float((high - low <= CONSTANT * torch.maximum(high.abs(), low.abs())).double().mean())


def _joined(gradients: Gradients, parameters: Mapping[str, nn.Parameter]) -> Tensor | None:
    """The gradients of some parameters as one vector, zero where one has none; None where none has any."""
    if all(gradients.get(name) is None for name in parameters):
        return None
    found = (g if (g := gradients.get(name)) is not None else torch.zeros_like(p) for name, p in parameters.items())
    return torch.cat([g.detach().double().flatten() for g in found])


def _named(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters(remove_duplicate=False))


def _rms(x: Tensor | None) -> float | None:
    return None if x is None or not x.numel() else float(x.double().square().mean().sqrt())
