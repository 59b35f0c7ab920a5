"""Does a traced graph compute what its model computes? Run both from equal states and compare.

Tracing can be silently wrong where the forward pass changes Python state that it reads again, or writes
into a view of a tensor. Both run twice in a row, on the example inputs and on others of another batch
size, as copies: nothing of the model changes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn

from reclra_compile.errors import Fault, Location, ModelError
from reclra_compile.frontend.example import Example, with_batch
from reclra_compile.frontend.outputs import Joined, Path, pick
from reclra_compile.frontend.share import ParameterWritten, aliases, guarded, random_fork, replaced, shared_copy
from reclra_compile.frontend.user_code import line_of, source_line, summary

#: parameters up to this size have their gradients compared
_SMALL = 1 << 20


class Probe:
    """Runs of the model that graphs are compared with; raises ModelError (M010, M106) where the model itself fails."""

    def __init__(self, model: nn.Module, example: Example) -> None:
        self.model, self.example = model, example
        self.meta = any(t.is_meta for t in (*model.parameters(), *example.tensors))
        self._runs: dict[bool, tuple[tuple[Example, ...], list[Any], list[Tensor]]] = {}
        self._gradients: dict[Path | Joined, list[Tensor | None]] = {}
        self.result = self._run(vary=not self.meta)[1][0]  #: what the model returns

    def mismatch(self, graph: fx.GraphModule, path: Path | Joined, vary: bool = True) -> bool:
        """True where `graph` gives other values than the model's output at `path`, or leaves other buffers.

        Models on the meta device have no values to compare. `vary`: the graph takes any batch size.
        """
        if self.meta:
            return False
        examples, results, buffers = self._run(vary)
        twin, model, _ = self._copies(graph)
        ours = [_seeded(twin, self.model, example.tensors, {}) for example in examples]
        theirs = [pick(r, path) for r in results]
        pairs = [*zip(_flat(ours), _flat(theirs), strict=True), *zip(model.buffers(), buffers, strict=True)]
        if not all(_close(a, b) for a, b in pairs):
            return True
        twin, _, learned = self._copies(graph)
        gradients = _gradients(lambda: twin(*self.example.tensors), learned, self.model)
        return not _same_gradients(gradients, self._expected(path))

    def _copies(self, graph: fx.GraphModule) -> tuple[fx.GraphModule, nn.Module, list[Any]]:
        """The graph over buffers and Python state of its own, the model that has them, and the parameters."""
        memo = aliases(self.model)
        model = shared_copy(self.model, memo)
        return copy.deepcopy(graph, memo), model, [memo.get(id(p), p) for p in self.model.parameters()]

    def _expected(self, path: Path | Joined) -> list[Tensor | None]:
        """The model's own gradients, where its backward pass works."""
        if path not in self._gradients:
            memo = aliases(self.model)
            twin = shared_copy(self.model, memo)
            learned = [memo.get(id(p), p) for p in self.model.parameters()]
            run = lambda: pick(twin(*self.example.args, **self.example.named), path)  # noqa: E731
            self._gradients[path] = _gradients(run, learned, self.model)
        return self._gradients[path]

    def _run(self, vary: bool) -> tuple[tuple[Example, ...], list[Any], list[Tensor]]:
        """The example inputs of two runs, what the model returns, and the buffers it leaves."""
        if vary not in self._runs:
            batch = self.example.tensors[0].shape[0]
            other = with_batch(self.example, batch + 1 if vary else batch, seed=1)
            try:
                self._runs[vary] = self._on(self.example, other)
            except ModelError:
                if not vary or len(self._on(self.example)[1]) != 1:
                    raise
                self._runs[vary] = self._run(False)  # the model takes no other batch size
        return self._runs[vary]

    def _on(self, *examples: Example) -> tuple[tuple[Example, ...], list[Any], list[Tensor]]:
        memo = aliases(self.model)
        twin = shared_copy(self.model, dict(memo))
        try:
            with guarded(self.model):
                results = [_seeded(twin, self.model, e.args, e.named) for e in examples]
            if (name := None if self.meta else replaced(self.model, memo)) is not None:
                raise ParameterWritten(name)
        except ParameterWritten as error:
            raise ModelError(writes_parameter(error)) from error
        except Exception as error:
            raise ModelError(model_fails(error, self.example.tensors, "the example inputs")) from error
        return examples, results, list(twin.buffers())


def model_fails(error: Exception, inputs: Sequence[Tensor], called: str, where: Location | None = None) -> Fault:
    """The report (M010) of a model that fails on its example inputs, which the user knows as `called`.

    It names the user's line in the traceback; `where` is the place if there is none.
    """
    line = line_of(error)
    quoted = f": `{source_line(line)}`" if line else ""
    shapes = " and ".join(str(tuple(x.shape)) for x in inputs)
    return Fault(
        "M010",
        f"the model fails on its example inputs of shape {shapes} ({summary(error)}){quoted}",
        line or where,
        f"make {called} and the model fit each other: one tensor for each argument, batch first",
    )


def writes_parameter(error: ParameterWritten) -> Fault:
    """The report (M106) of a forward pass that changes the model's own parameters."""
    line = line_of(error)
    quoted = f": `{source_line(line)}`" if line else ""
    return Fault(
        "M106",
        f"the forward pass changes its own parameter '{error.name}'{quoted}",
        line,
        "change it after the optimizer's step, or compute what you need from it without writing to it",
    )


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6, equal_nan=True)


def _seeded(module: nn.Module, model: nn.Module, args: tuple[Tensor, ...], named: dict[str, Any]) -> Any:
    meta = any(p.is_meta for p in model.parameters())
    with torch.no_grad(), random_fork(model), torch.device("meta") if meta else nullcontext():
        torch.manual_seed(0)
        return module(*args, **named)


def _gradients(run: Callable[[], Tensor], learned: list[Any], model: nn.Module) -> list[Tensor | None]:
    """Gradients of a fixed function of the output for the small parameters, as large ones cost their own memory.

    torch.no_grad inside a model changes no value, only these.
    """
    small = [p if p.requires_grad and p.numel() <= _SMALL else None for p in learned]
    wanted = [p for p in small if p is not None]
    try:
        with torch.enable_grad(), random_fork(model):
            torch.manual_seed(0)
            output = run()
            if not wanted or not output.requires_grad:
                return [None] * len(small)
            weights = torch.linspace(-1, 2, output.numel(), device=output.device).to(output).view(output.shape)
            grads = iter(torch.autograd.grad(output, wanted, weights, allow_unused=True))
            return [None if p is None else next(grads) for p in small]
    except RuntimeError:
        return []


def _same_gradients(ours: list[Tensor | None], theirs: list[Tensor | None]) -> bool:
    if not theirs:
        return True  # the model cannot learn by backpropagation, but may by another rule
    if len(ours) != len(theirs):
        return False
    scale = max((float(g.abs().max()) for g in theirs if g is not None and g.numel()), default=0.0)
    for a, b in zip(ours, theirs, strict=True):
        if a is None or b is None:
            wrong = max((float(g.abs().max()) for g in (a, b) if g is not None and g.numel()), default=0.0)
        else:
            wrong = float((a - b).abs().max()) if a.numel() else 0.0
        if wrong > 1e-3 * scale:
            return False
    return True


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from _flat(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from _flat(v)
