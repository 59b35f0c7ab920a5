"""Initial values of a rank's own share of a model, and of nothing else.

A model on the meta device has shapes and no memory. `initialise` gives some of its parameters and buffers values that
depend on the seed and on their names alone, so that any number of ranks draws one and the same model. `share` takes
away what a rank does not own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reclra_compile.distributed.recording import Recording, attributes, random_state_kept, stream, tensors
from reclra_compile.errors import Fault, RankError
from reclra_compile.frontend.user_code import summary

#: what modules call the method that draws their parameters
_RESETS = ("reset_parameters", "_reset_parameters")


def initialise(
    roots: Sequence[nn.Module],
    names: Collection[str],
    seed: int,
    device: torch.device,
    *,
    record: Recording | None = None,
    known: Mapping[str, Tensor] | None = None,
) -> None:
    """Give the parameters and buffers `names` of the model `roots[0]` that are on meta initial values on `device`.

    They are replaced in all `roots`, which are trees that hold the same tensors; ties stay ties. A value is, in this
    order: that in `known`; what `_init_weights` of a model of transformers draws; what the constructor did, where
    `record` watched it; what `reset_parameters` draws. Draws depend on `seed` and names alone; torch's random state
    stays as it is. Raises RankError (R113) that lists what nothing sets; then nothing is replaced.
    """
    model, known = roots[0], known or {}
    aliases = _aliases(model, names)
    sources = _Sources(model, record)
    made: dict[int, tuple[Tensor, Tensor]] = {}
    missing: list[str] = []
    for old, called in aliases:
        if not old.is_meta:
            continue
        value = next((known[n] for n in called if n in known), None)
        if value is None:
            value = sources.value(called, seed)
        if value is None:
            missing.append(f"'{called[0]}' ({_owner(model, called[0])})")
        elif value.shape != old.shape:
            raise ValueError(f"'{called[0]}' is {tuple(old.shape)}, not {tuple(value.shape)}")
        else:
            given = any(n in known for n in called)  # the caller's tensor stays its own
            made[id(old)] = old, _like(old, value.detach().to(device=device, dtype=old.dtype, copy=given))
    for label, old in _strays(roots):
        value = record.value(label, seed) if record else None
        if value is not None:
            made[id(old)] = old, _like(old, value.to(device=device, dtype=old.dtype))
        elif any(old is t for root in roots[1:] for t in root.buffers()):
            missing.append(f"'{label}' (a constant of forward())")
    if missing:
        failed = "".join(f"; {why}" for why in sources.failed)
        raise RankError(
            Fault("R113", f"nothing says how these get their initial values: {', '.join(missing)}{failed}",
                  fix="define reset_parameters() on the module that has them, or use --init build")
        )  # fmt: skip
    _replace(roots, made)


def share(roots: Sequence[nn.Module], own: Collection[str]) -> None:
    """Put the parameters and buffers of the model `roots[0]` that have no name in `own` on the meta device.

    They are replaced in all `roots`; ties and `requires_grad` are kept, gradients are dropped. Whatever else holds
    them, such as a linked program or an optimizer, has to be made afterwards. Raises ValueError for an unknown name.
    """
    kept = {id(t) for t, _ in _aliases(roots[0], own)}
    others = {id(t): t for _, t in tensors(roots[0]) if id(t) not in kept and not t.is_meta}
    _replace(roots, {k: (t, _like(t, torch.empty_like(t.detach(), device="meta"))) for k, t in others.items()})


class _Sources:
    """Where values come from that are not known: each record says what a tensor's name stands for."""

    def __init__(self, model: nn.Module, record: Recording | None) -> None:
        self.failed: list[str] = []
        self._model = model
        self._records: list[Recording] = []
        if record is not None:
            record.bind(model)
        if any(_drawer(m, record) for m in model.modules()):
            self._records.append(self._drawn(lambda twin: self._draw_by_owners(twin, record)))
        if record is not None:
            self._records.append(record)
        self._reset: Recording | None = None

    def value(self, names: Sequence[str], seed: int) -> Tensor | None:
        """The value of a tensor that has several `names`; None where no source sets all of it."""
        for record in self._records:
            for name in names:
                if (value := record.value(name, seed)) is not None:
                    return value
        if self._reset is None:
            self._reset = self._drawn(self._reset_all)
        return next((v for n in names if (v := self._reset.value(n, seed)) is not None), None)

    def _drawn(self, draw: Callable[[nn.Module], None]) -> Recording:
        """What `draw` does to a copy of the model that is on meta as a whole: the model's own values stay."""
        twin, record = _on_meta(self._model), Recording()
        with random_state_kept(), torch.no_grad(), record, torch.device("meta"):
            draw(twin)
        record.bind(twin)
        return record

    def _reset_all(self, twin: nn.Module) -> None:
        """Children first, as constructors do: a module may draw its children's parameters anew."""
        for path, module in _inside_out(twin):
            name = next((n for n in _RESETS if callable(getattr(module, n, None))), None)
            if name is not None:
                self._try(path, f"{type(module).__name__}.{name}", getattr(module, name))

    def _draw_by_owners(self, twin: nn.Module, record: Recording | None) -> None:
        """Each module by the innermost one around it that knows how to draw its parts."""
        owners: dict[str, Any] = {path: m for path, m in twin.named_modules() if _drawer(m, record)}
        for path, module in _inside_out(twin):
            around = [path, *(path[:k] for k in range(len(path) - 1, -1, -1) if path[k] == "."), ""]
            owner = next((owners[p] for p in around if p in owners), None)
            if owner is not None:
                self._try(path, f"{type(owner).__name__}._init_weights", owner._init_weights, module)

    def _try(self, path: str, name: str, method: Callable[..., object], *args: nn.Module) -> None:
        torch.default_generator.manual_seed(stream(0, path))  # for what is drawn on the CPU although all is on meta
        try:
            method(*args)
        except Exception as error:
            self.failed.append(f"{name} fails on the meta device ({summary(error)})")


def _drawer(module: nn.Module, record: Recording | None) -> bool:
    """True where `_init_weights(part)` of this module draws its parts.

    Models of transformers leave it out on the meta device; in others the constructor calls it, and is on record.
    """
    return callable(getattr(module, "_init_weights", None)) and (record is None or hasattr(module, "post_init"))


def _on_meta(model: nn.Module) -> nn.Module:
    memo: dict[int, Any] = {}
    for _, t in tensors(model):
        if id(t) not in memo:
            memo[id(t)] = _like(t, torch.empty_like(t.detach(), device="meta"))
    twin: nn.Module = copy.deepcopy(model, memo)
    return twin


def _inside_out(model: nn.Module, path: str = "") -> Iterable[tuple[str, nn.Module]]:
    for name, child in model.named_children():
        yield from _inside_out(child, f"{path}.{name}" if path else name)
    yield path, model


def _aliases(model: nn.Module, names: Collection[str]) -> list[tuple[Tensor, list[str]]]:
    """The tensors called `names`, each once, with all the names that it has in the model."""
    called: dict[int, tuple[Tensor, list[str]]] = {}
    for name, t in tensors(model):
        called.setdefault(id(t), (t, []))[1].append(name)
    wanted = set(names)
    unknown = wanted - {n for _, all_names in called.values() for n in all_names}
    if unknown:
        raise ValueError(f"the model has no parameter or buffer {', '.join(sorted(unknown))}")
    return [(t, all_names) for t, all_names in called.values() if wanted & set(all_names)]


def _strays(roots: Sequence[nn.Module]) -> list[tuple[str, Tensor]]:
    """Tensors on meta that are not the model's parameters or buffers: plain attributes, and constants of graphs."""
    own = {id(t) for _, t in tensors(roots[0])}
    named = [*attributes(roots[0]), *(x for root in roots[1:] for x in (*tensors(root), *attributes(root)))]
    found: dict[int, tuple[str, Tensor]] = {}
    for name, t in named:
        if t.is_meta and id(t) not in own:
            found.setdefault(id(t), (name, t))
    return list(found.values())


def _owner(model: nn.Module, name: str) -> str:
    return type(model.get_submodule(name.rpartition(".")[0])).__name__


def _like(old: Tensor, value: Tensor) -> Tensor:
    """`value` as a parameter or buffer in the place of `old`."""
    if not isinstance(old, nn.Parameter):
        return value.requires_grad_(old.requires_grad)
    new = nn.Parameter(value, requires_grad=old.requires_grad)
    new.__dict__.update(old.__dict__)
    return new


def _replace(roots: Sequence[nn.Module], made: Mapping[int, tuple[Tensor, Tensor]]) -> None:
    """Put new tensors into every module that holds the old ones.

    The objects are replaced, not their memory: torch lets neither `.data` change to another kind of device nor
    `swap_tensors` work on tensors that are referred to weakly, as an LSTM does to its weights.
    """

    def new(value: Any) -> Any:
        return made[id(value)][1] if id(value) in made else value

    for module in dict.fromkeys(m for root in roots for m in root.modules()):
        for leaf, t in (*module._parameters.items(), *module._buffers.items()):
            if id(t) in made:
                setattr(module, leaf, new(t))
        for leaf, value in vars(module).items():
            if leaf in ("_parameters", "_buffers", "_modules"):
                continue
            if type(value) in (list, tuple) and any(id(v) in made for v in value):
                vars(module)[leaf] = type(value)(new(v) for v in value)
            elif type(value) is dict and any(id(v) in made for v in value.values()):
                vars(module)[leaf] = {k: new(v) for k, v in value.items()}
            elif id(value) in made:
                vars(module)[leaf] = new(value)
