"""What a loop calls the model with, as the inputs of a program."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from reclra_compile.errors import Fault, TrainingError
from reclra_compile.frontend.example import Example

#: keywords that libraries hand to any model that takes keywords, and that change nothing without labels
_PASSED_BY = frozenset(("num_items_in_batch",))


class Inputs:
    """Sorts the arguments of a call of the model's forward() into the inputs it was traced with."""

    def __init__(self, forward: Callable[..., Any], example: Example) -> None:
        self._signature = inspect.signature(forward)
        parameters = list(self._signature.parameters.values())
        plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        several = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        positional = [p.name for p in plain if p.kind is not p.KEYWORD_ONLY][: len(example.args)]
        self._spread = several if len(example.args) > len(positional) else None
        self._names = [*positional, *example.keywords]
        self._count = len(example.tensors)
        self._constants = {p.name: example.named.get(p.name, p.default) for p in plain if p.name not in self._names}

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The program's inputs; raises TrainingError (A005) for others than the model was traced with."""
        kwargs = {k: v for k, v in kwargs.items() if k not in _PASSED_BY}
        try:
            bound = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TrainingError(Fault("A005", f"the model cannot be called so: {error}", fix=self._fix())) from None
        extra = [v for p in self._signature.parameters.values() if p.kind is p.VAR_POSITIONAL
                 for v in bound.pop(p.name, ())]  # fmt: skip
        for p in self._signature.parameters.values():
            if p.kind is p.VAR_KEYWORD:
                bound.update(bound.pop(p.name, {}))
        found = [bound.pop(name, None) for name in self._names] + (extra if self._spread else [])
        missing = [n for n, v in zip(self._names, found, strict=False) if v is None]
        other = [n for n, v in bound.items() if not _same(v, self._constants.get(n))]
        if missing:
            self._refuse(f"the model is called without '{missing[0]}', which it was traced with")
        if other:
            labels = "the loss is the loop's: leave labels out of the call, and " if "label" in other[0] else ""
            self._refuse(f"the model is called with '{other[0]}', which it was not traced with", labels)
        if len(found) != self._count or (extra and not self._spread):
            given = len(found) + len(extra)
            self._refuse(f"the model is called with {given} inputs, and was traced with {self._count}")
        return found

    def _refuse(self, message: str, more: str = "") -> None:
        raise TrainingError(Fault("A005", message, fix=more + self._fix()))

    def _fix(self) -> str:
        return (
            "attach the model with example_inputs as the loop calls it, such as a dict of "
            f"{', '.join(self._names) or 'its inputs'}"
        )


def _same(value: Any, constant: Any) -> bool:
    """True where an argument is what it was when the model was traced."""
    if value is constant or (value is None and constant is inspect.Parameter.empty):
        return True
    if isinstance(value, Tensor) or isinstance(constant, Tensor):
        return False
    return bool(value == constant)


