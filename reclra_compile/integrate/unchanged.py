"""What a plan was made for, compared with the model in each step: its layers, and which of its parameters learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from reclra_compile.errors import Fault, TrainingError, UserError

#: what FullyShardedDataParallel and fully_shard leave in each module
_SHARDED = "_is_fsdp_managed_module"


class Unchanged:
    """The layers of a model and its parameters, by their places, as they are now."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = [(m, m._modules, m._parameters) for _, m in _walk(model)]
        self._children = [(m._modules, key, child) for _, m in _walk(model) for key, child in m._modules.items()]
        places = [(m._parameters, key, p) for _, m in _walk(model) for key, p in m._parameters.items() if p is not None]
        self._places = [(owner, key) for owner, key, _ in places]
        self._frozen = [(owner, key) for owner, key, p in places if not p.requires_grad]
        self._sizes = self._counted()

    def check(self) -> None:
        """Raise TrainingError for a model that has been sharded (A009), or in which layers or parameters are others,
        or learn that did not (A011).
        """
        for children, key, child in self._children:
            if children.get(key) is not child:
                self._refuse(children, key, "has been replaced")
        for owner, key in self._places:
            if owner.get(key) is None:
                self._refuse(owner, key, "is not there any more (pruned, parametrized or sharded)")
        for owner, key in self._frozen:
            p = owner[key]
            if p is not None and p.requires_grad:
                self._refuse(owner, key, "was frozen, and is to learn")
        if any(_SHARDED in m.__dict__ for m, _, _ in self._modules):
            raise TrainingError(_sharded(self._model))
        if self._counted() != self._sizes:
            known = {(id(owner), key) for owner, key in self._places}
            for _, m in _walk(self._model):
                for key, p in m._parameters.items():
                    if p is not None and p.requires_grad and (id(m._parameters), key) not in known:
                        self._refuse(m._parameters, key, "has been added")
            self._sizes = self._counted()

    def _counted(self) -> list[tuple[int, int]]:
        return [(len(modules), len(parameters)) for _, modules, parameters in self._modules]

    def _refuse(self, owner: Any, key: str, what: str) -> None:
        if any(_SHARDED in m.__dict__ for m, _, _ in self._modules):
            raise TrainingError(_sharded(self._model))
        place = next(path for path, m in _walk(self._model) if owner is m._modules or owner is m._parameters)
        name = f"{place}.{key}" if place else key
        raise TrainingError(
            Fault("A011", f"'{name}' {what} since the model was attached",
                  fix="call rc.detach(model), change it, attach it again, and make a new optimizer")
        )  # fmt: skip


def refuse_sharded(model: nn.Module) -> None:
    """Raise UserError (A009) for a model whose parameters are spread over processes."""
    managed = any(_SHARDED in m.__dict__ for m in model.modules())
    if managed or any(hasattr(p, "placements") for p in model.parameters()):
        raise UserError(_sharded(model))


def _sharded(model: nn.Module) -> Fault:
    kind = next((k.__name__ for k in type(model).__mro__ if not k.__name__.startswith("FSDP")), "model")
    return Fault("A009", f"the parameters of this {kind} are spread over processes (FSDP, tensor parallel)",
                 fix="use torch.nn.parallel.DistributedDataParallel")  # fmt: skip


def _walk(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The model's own modules by path, without what is attached."""
    waiting, seen = [("", model)], set()
    while waiting:
        path, m = waiting.pop()
        if id(m) not in seen:
            seen.add(id(m))
            yield path, m
            waiting += [(f"{path}.{k}" if path else k, c) for k, c in m._modules.items() if c is not None]
