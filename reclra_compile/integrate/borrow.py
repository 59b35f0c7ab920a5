"""A model's parameters as regions see them: aliases over the same memory, which no hook of the loop hangs on.

Regions take gradients piece by piece. On the model's own parameters that would fire hooks (of DistributedDataParallel,
or of an optimizer that steps in the backward pass) once for each piece; on aliases it fires none, and the loop's own
backward pass fires each once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn

from reclra_compile.integrate.unchanged import Unchanged

Place = tuple[dict[str, nn.Parameter | None], str, nn.Parameter]
Buffers = dict[str, Tensor | None]


class Borrowed:
    """Aliases of the parameters of a model, and, once there are any, of its synapses.

    `lock`: held by whoever has them lent, or looks at what is lent.
    """

    def __init__(self, model: nn.Module) -> None:
        self.lock = threading.RLock()
        self._unchanged = Unchanged(model)
        self._places: list[Place] = []
        self._buffers: list[tuple[Buffers, str, Buffers, str]] = []
        self._twins: list[tuple[nn.Module, nn.Module]] = []
        self._add(model, {})

    def _add(self, module: nn.Module, known: dict[int, nn.Parameter]) -> None:
        for m in module.modules():
            for key, p in m._parameters.items():
                if p is not None:
                    alias = known.setdefault(id(p), nn.Parameter(p.detach(), requires_grad=p.requires_grad))
                    self._places.append((m._parameters, key, alias))

    def pair(self, synapses: nn.Module, linked: nn.Module) -> None:
        """Let the parameters of `linked`, which tasks use, be the aliases of those of `synapses`, its copy."""
        own = dict(synapses.named_modules())
        for name, m in linked.named_modules():
            for key, alias in m._parameters.items():
                if alias is not None:
                    self._places.append((own[name]._parameters, key, alias))

    def follow(self, model: nn.Module, regions: Iterable[nn.Module], called: Mapping[str, nn.Module]) -> None:
        """Let buffers that graphs of regions hold be those of the model, also after it has moved or been loaded.

        `called`: the modules that graphs call, by path; those that stand in for one of the model's keep its mode.
        """
        own_modules = dict(model.named_modules())
        self._twins = [(m, own_modules[path]) for path, m in called.items() if own_modules.get(path, m) is not m]
        held = {id(b): (m._buffers, k) for m in model.modules() for k, b in m._buffers.items() if b is not None}
        own = {id(m._buffers) for m in model.modules()}
        for m in (m for region in regions for m in region.modules() if id(m._buffers) not in own):
            self._buffers += [(m._buffers, k, *held[id(b)]) for k, b in m._buffers.items() if id(b) in held]

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, the modules hold the aliases, with the values that the parameters have now.

        Raises TrainingError (A009, A011) for a model that has changed.
        """
        with self.lock:
            self.check()
            yield from self._lent()

    def check(self) -> None:
        """Raise TrainingError (A009, A011) for a model that is not what its plan was made for."""
        self._unchanged.check()

    def _lent(self) -> Iterator[None]:
        kept = [owner[key] for owner, key, _ in self._places]
        for (_, _, alias), real in zip(self._places, kept, strict=True):
            if real is not None:
                alias.data = real.data
                alias.requires_grad_(real.requires_grad)
        for owner, key, alias in self._places:
            owner[key] = alias
        for buffers, name, of_model, key in self._buffers:
            buffers[name] = of_model[key]
        for twin, module in self._twins:
            twin.training = module.training
        try:
            yield
        finally:
            for (owner, key, _), real in zip(self._places, kept, strict=True):
                owner[key] = real

    def pairs(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Each parameter with its alias, once."""
        found = {id(alias): (owner.get(key), alias) for owner, key, alias in self._places}
        return [(real, alias) for real, alias in found.values() if real is not None]

    def own(self) -> dict[int, nn.Parameter]:
        """The parameter that each alias, by identity, stands for."""
        return {id(alias): real for real, alias in self.pairs()}

    def take(self) -> dict[int, Tensor]:
        """The gradients that tasks have left at aliases, by the identity of the parameter; they are gone from there."""
        found: dict[int, Tensor] = {}
        for real, alias in self.pairs():
            if alias.grad is not None:
                found[id(real)], alias.grad = alias.grad, None
        return found
