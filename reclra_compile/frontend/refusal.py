"""Why a model could not be traced: the user's line, what was tried, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from reclra_compile.errors import Fault, ModelError
from reclra_compile.frontend.functional import Aliased
from reclra_compile.frontend.outputs import forward_at
from reclra_compile.frontend.user_code import line_of, source_line, summary


@dataclass(frozen=True)
class Attempt:
    """One way of tracing and the error it ended with; None where its graph computes something else."""

    route: str
    error: Exception | None


def fault(model: nn.Module, tried: list[Attempt]) -> Fault:
    """The report of a model that none of the ways could trace."""
    own = [f for a in tried if isinstance(a.error, ModelError) for f in a.error.faults]
    if own:
        return own[-1]
    routes = _tried(tried)
    depends = [a.error for a in tried if a.error is not None and _depends_on_data(a.error)]
    exports = [a.error for a in tried if not isinstance(a.error, fx.proxy.TraceError)]
    if depends and not any(e is None or isinstance(e, Aliased) for e in exports):
        where = next((w for w in map(line_of, depends) if w is not None), None)
        return Fault(
            "M101",
            f"what is computed depends on values in the data, so there is no one graph to compile: "
            f"`{source_line(where)}`; {routes}",
            where,
            "decide it from shapes or constructor arguments, or use torch.where on tensors",
        )
    error = next((e for e in reversed(exports) if e is not None and not isinstance(e, Aliased)), None)
    if error is not None and not any(e is None for e in exports):
        where = line_of(error) or forward_at(model)
        return Fault(
            "M102",
            f"the forward pass cannot be traced ({summary(error)}): `{source_line(where)}`; {routes}",
            where,
            "keep what torch cannot see (NumPy, Python numbers made of tensors) out of the forward pass",
        )
    return Fault(
        "M105",
        f"the traced graph of {type(model).__name__} does not compute what the model computes; {routes}",
        forward_at(model),
        "the forward pass probably changes Python state that it reads again; keep state in buffers "
        "(register_buffer) and return new values instead",
    )


def _tried(tried: list[Attempt]) -> str:
    """What was tried and how each ended, ways with one outcome together."""
    outcomes: dict[str, list[str]] = {}
    for attempt in tried:
        outcomes.setdefault(_outcome(attempt.error), []).append(attempt.route)
    return "tried " + "; ".join(f"{' and '.join(routes)}: {outcome}" for outcome, routes in outcomes.items())


def _depends_on_data(error: Exception) -> bool:
    # by name: the module that defines it imports sympy, which costs every start a quarter of a second
    return type(error).__name__ == "GuardOnDataDependentSymNode" or "data-dependent" in str(error).lower()


def _outcome(error: Exception | None) -> str:
    if error is None:
        return "other values, buffers or gradients than the model"
    if isinstance(error, Aliased):
        return "writes into values that are read elsewhere"
    if isinstance(error, fx.proxy.TraceError):
        return "control flow on values"
    if _depends_on_data(error):
        return "needs a value of the data"
    return summary(error)
