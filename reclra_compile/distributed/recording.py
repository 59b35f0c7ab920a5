"""Watch how tensors on the meta device get their values, and carry that out later for single ones.

A constructor that runs on the meta device computes nothing, but it says all the same which operations make each
parameter: `uniform_`, then `xavier_uniform_`, or `0.02 * torch.randn(…)`. A Recording keeps them, and replays those
that one tensor depends on, on the CPU. Random operations draw from streams of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter, tree_map

from reclra_compile.distributed.watch import watching, written

_CPU = torch.device("cpu")
#: operations that leave nothing of what was there before
_OVERWRITE = frozenset({"uniform_", "normal_", "zero_", "fill_", "copy_", "log_normal_", "exponential_", "cauchy_"})
_UNSET = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})


@dataclass(frozen=True)
class View:
    """A tensor as a part of a storage: `storage` is its number, sizes are in elements of `dtype`."""

    storage: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Draws:
    """A user's own generator as it was when an operation used it, for the `count`-th time in this state."""

    state: Tensor
    count: int

    def generator(self) -> torch.Generator:
        """One that draws the same; another stream where the meta device, which draws nothing, left the state as is."""
        made = torch.Generator()
        made.set_state(self.state)
        return made if not self.count else made.manual_seed(stream(made.initial_seed(), f"{self.count}"))


@dataclass(frozen=True)
class Step:
    """One operation: what it is called with, and the storages that it reads, writes, and makes (`results`)."""

    call: Any
    args: Any
    kwargs: Any
    results: tuple[View | None, ...]
    touched: frozenset[int]
    writes: frozenset[int]
    overwrites: bool
    random: bool


def stream(seed: int, name: str) -> int:
    """The seed of the random stream `name` of a run with `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Recording:
    """Inside this context, operations on meta tensors are kept.

    `with Recording() as record, torch.device("meta"): model = build()`, then `record.bind(model)`.
    """

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._writers: dict[int, list[int]] = defaultdict(list)
        self._kept: dict[int, Any] = {}  # storages, so that their numbers are not given again
        self._bound: dict[str, View] = {}
        self._streams: dict[int, str] = {}
        self._generators: dict[int, torch.Generator] = {}  # so that no other gets the same id
        self._states: dict[tuple[int, bytes], int] = {}
        self._modes = contextlib.ExitStack()

    def __enter__(self) -> Recording:
        self._modes.enter_context(watching(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._modes.close()

    def bind(self, model: nn.Module) -> None:
        """Remember what the model's names stand for, plain attributes too: a cast (`model.half()`) makes others."""
        for name, t in (*tensors(model), *attributes(model)):
            if t.is_meta and (view := self._view(t)).storage in self._writers:
                self._bound[name] = view

    def add(self, call: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Keep an operation that has just run on meta tensors."""
        outputs = [t if isinstance(t, Tensor) and t.is_meta else None for t in tree_iter(result)]
        given = {id(t): t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        before = {self._view(t).storage for t in given.values() if t.is_meta}
        changed = [t for t in written(call, args, kwargs) if t.is_meta]
        results = tuple(None if t is None or id(t) in given else self._view(t) for t in outputs)
        made = {v.storage for v in results if v is not None} - before
        name = call._schema.name.partition("::")[2]
        if not (made or changed) or (made and name in _UNSET):
            return
        overwrites = bool(made) or (name in _OVERWRITE and all(covers(t) for t in changed))
        self._keep(
            Step(
                call,
                tree_map(self._reference, args),
                tree_map(self._reference, kwargs),
                tuple(v if v is not None and v.storage in made else None for v in results),
                frozenset(before | made),
                frozenset({self._view(t).storage for t in changed} | made),
                overwrites,
                torch.Tag.nondeterministic_seeded in call.tags,
            )
        )

    def add_call(self, call: Any, arguments: dict[str, Any]) -> None:
        """Keep a function of `torch.nn.init` as a whole: it draws all of its argument `tensor` anew."""
        view, whole = self._view(arguments["tensor"]), covers(arguments["tensor"])
        arguments = tree_map(self._reference, arguments)
        own = frozenset({view.storage})
        self._keep(Step(call, (), arguments, (None,), own, own, whole, True))

    def _keep(self, step: Step) -> None:
        for number in step.writes:
            self._writers[number].append(len(self._steps))
        self._steps.append(step)

    def _view(self, t: Tensor) -> View:
        storage = t.untyped_storage()
        number = storage._cdata
        self._kept.setdefault(number, storage)
        return View(number, t.dtype, tuple(t.shape), tuple(t.stride()), int(t.storage_offset()))

    def _reference(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._view(value) if value.is_meta else value.detach().clone()
        if isinstance(value, torch.Generator):
            state = value.get_state()
            self._generators[id(value)] = value
            seen = id(value), bytes(state.numpy().tobytes())
            self._states[seen] = count = self._states.get(seen, -1) + 1
            return Draws(state, count)
        return _CPU if isinstance(value, torch.device) else value

    def value(self, name: str, seed: int) -> Tensor | None:
        """The value of the bound tensor `name`, on the CPU, or None where a part of it is never set.

        It depends on `seed` and the record alone, not on the values that were asked for before.
        """
        view = self._bound.get(name)
        if view is None:
            return None
        self._name_streams()
        steps = self._needed(view)
        value = self._replayed(view, steps, seed, 0)
        if value.is_floating_point() or value.is_complex():
            return None if value.isnan().any() else value
        return value if torch.equal(value, self._replayed(view, steps, seed, 1)) else None

    def _name_streams(self) -> None:
        """Call each draw by the first name, in the model's order, that depends on it."""
        if self._streams:
            return
        for name, view in self._bound.items():
            found = [i for i in self._needed(view) if self._steps[i].random]
            for k, i in enumerate(found):
                self._streams.setdefault(i, f"{name}/{k}")

    def _needed(self, view: View) -> list[int]:
        """The steps that a tensor's last value depends on, in order."""
        needed: set[int] = set()
        todo = [(view.storage, len(self._steps))]
        while todo:
            storage, end = todo.pop()
            for i in reversed([i for i in self._writers[storage] if i < end]):
                step = self._steps[i]
                if i not in needed:
                    needed.add(i)
                    todo += [(s, i) for s in step.touched if s != storage]
                if step.overwrites:
                    break
        return sorted(needed)

    def _replayed(self, view: View, steps: list[int], seed: int, filler: int) -> Tensor:
        """What `steps` make of a tensor; memory that none of them sets is NaN, or `filler` where it cannot be."""
        live: dict[int, torch.UntypedStorage] = {}

        def real(v: View) -> Tensor:
            if v.storage not in live:
                count = self._kept[v.storage].nbytes() // v.dtype.itemsize
                unset = float("nan") if v.dtype.is_floating_point or v.dtype.is_complex else filler
                live[v.storage] = torch.full((count,), unset, dtype=v.dtype, device=_CPU).untyped_storage()
            with torch.no_grad():
                return torch.empty(0, dtype=v.dtype, device=_CPU).set_(live[v.storage], v.offset, v.size, v.stride)

        def given(value: Any) -> Any:
            if isinstance(value, View):
                return real(value)
            return value.generator() if isinstance(value, Draws) else value

        with torch.no_grad(), random_state_kept():
            for i in steps:
                step = self._steps[i]
                if step.random:
                    torch.default_generator.manual_seed(stream(seed, self._streams[i]))
                result = step.call(*tree_map(given, step.args), **tree_map(given, step.kwargs))
                for v, made in zip(step.results, tree_iter(result), strict=True):
                    if v is not None:
                        real(v).copy_(made)
            value = real(view)
            return value if covers(value) else value.clone()


def tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a model under all their names: `state_dict` paths, buffers out of it included."""
    for path, module in model.named_modules(remove_duplicate=False):
        for leaf, t in (*module._parameters.items(), *module._buffers.items()):
            if t is not None:
                yield (f"{path}.{leaf}" if path else leaf), t


def attributes(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that modules keep as plain attributes, which are neither parameters nor buffers."""
    for path, module in model.named_modules():
        for leaf, t in vars(module).items():
            if isinstance(t, Tensor):
                yield (f"{path}.{leaf}" if path else leaf), t


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Inside, draws on the CPU leave torch's own random state as it was afterwards."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def covers(t: Tensor) -> bool:
    """True where a tensor is all of its storage."""
    return t.numel() * t.element_size() == t.untyped_storage().nbytes()
