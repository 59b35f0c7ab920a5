"""The registry of target rules and synapse updates: shipped and plugged-in ones are entered the same way.

A rule is a function whose parameter names say what it reads; its docstring's first line is its meaning. Rules of
other packages are entered by `reclra_compile.register_target` and `register_update`, or found by entry points in
the groups `reclra_compile.targets` and `reclra_compile.updates`, whose name is the rule's name; an entry point is
imported when a wiring or plan names it. Torch-free, so that wirings are checked and plans are made without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from reclra_compile.errors import Fault, UserError

CODES = {
    "L001": "a rule is registered under a name that is taken",
    "L002": "a rule reads a value, or has a kernel, that does not exist",
    "L003": "a rule's entry point cannot be imported",
    "L004": "a rule returns something else than it has to",
}
TARGET_READS = ("z", "h", "d", "phi", "beta")
KERNELS = ("dense", "low_rank", "channel", "spatial", "conv")  #: kernels with synapses of their own
MATRICES = ("dense", "low_rank", "channel", "spatial")  #: of these, the ones that can be read out
_RESERVED = ("auto", "none", "same")


@dataclass(frozen=True, slots=True)
class TargetRule:
    """How a region's displacement becomes its error neurons.

    `function` gives the target y from what it `reads` by name: the region's z and h, the displacement d, the
    activation `phi` and β (E3); then e = z − y, and the options of E2 apply. None: the runtime makes the
    errors in a way of its own. With `derivative` the weight update multiplies e by φ'(h).
    """

    name: str
    about: str
    function: Callable[..., Any] | None = None
    reads: tuple[str, ...] = ()
    derivative: bool = False


@dataclass(frozen=True, slots=True)
class SynapseUpdate:
    """How the synapses E of a pathway learn.

    `function` gives the factors (u, v) of ΔE = Σ_n u_n v_nᵀ, a gradient to descend, from what it `reads` by
    name: z, h and d of the target, e of the source, the labels y, r, the error of the target's own read-out.
    None: the runtime computes the update in a way of its own, or the synapses do not learn. `kernels` can have
    it; `readout` comes from the output alone. Of the shipped updates some also read the loss, or x, what the two
    regions read.
    """

    name: str
    about: str
    function: Callable[..., Any] | None = None
    reads: tuple[str, ...] = ()
    kernels: tuple[str, ...] = KERNELS
    readout: bool = False


Rule = TypeVar("Rule", TargetRule, SynapseUpdate)


class Registry(Mapping[str, Rule], Generic[Rule]):
    """Rules by name; names that are not here yet are looked for among the entry points of a group."""

    def __init__(self, group: str, what: str) -> None:
        self.group, self.what = group, what
        self._rules: dict[str, Rule] = {}

    def add(self, rule: Rule) -> None:
        """Enter a rule; raises UserError (L001) where its name stands for another one."""
        known = self._rules.get(rule.name)
        if rule.name in _RESERVED or (known is not None and _home(known) != _home(rule)):
            fault = Fault("L001", f"there is a {self.what} '{rule.name}' already", fix="choose another name")
            raise UserError(fault)
        self._rules[rule.name] = rule

    @property
    def known(self) -> Mapping[str, Rule]:
        """The rules that are registered by now; nothing is imported."""
        return self._rules

    def __getitem__(self, name: str) -> Rule:
        if name not in self._rules and name in self._offered():
            self._import(self._offered()[name])
        return self._rules[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rules or (isinstance(name, str) and name in self._offered())

    def __iter__(self) -> Iterator[str]:
        yield from self._rules
        yield from (name for name in self._offered() if name not in self._rules)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _offered(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _import(self, point: EntryPoint) -> None:
        try:
            point.load()
        except Exception as error:  # somebody else's module fails in ways of its own
            raise self._broken(point, f"{type(error).__name__}: {error}") from error
        if point.name not in self._rules:
            raise self._broken(point, "importing it registers no such name")

    def _broken(self, point: EntryPoint, why: str) -> UserError:
        message = f"the {self.what} '{point.name}' comes from {point.value}, which does not work: {why}"
        return UserError(Fault("L003", message, fix="mend or uninstall the package that provides it"))


def _home(rule: TargetRule | SynapseUpdate) -> tuple[str, str]:
    """Where a rule is written: the same place may enter it again, as when a module is reloaded."""
    return getattr(rule.function, "__module__", ""), getattr(rule.function, "__qualname__", "")


TARGETS: Registry[TargetRule] = Registry("reclra_compile.targets", "target rule")
UPDATES: Registry[SynapseUpdate] = Registry("reclra_compile.updates", "synapse update")
Function = TypeVar("Function", bound=Callable[..., Any])


def register_target(name: str, *, derivative: bool = False) -> Callable[[Function], Function]:
    """Enter a function as the target rule `name`: it returns y, (N, …), from any of z, h, d, phi, beta by name.

    With `derivative` the weight update multiplies e = z − y by φ'(h). Raises UserError (L001, L002).
    """

    def enter(function: Function) -> Function:
        reads = _reads(function, name, TARGET_READS)
        TARGETS.add(TargetRule(name, _about(function), function, reads, derivative))
        return function

    return enter


def register_update(
    name: str, *, kernels: tuple[str, ...] | None = None, readout: bool = False
) -> Callable[[Function], Function]:
    """Enter a function as the synapse update `name`: it returns (u, v) of ΔE = Σ_n u_n v_nᵀ, a gradient to descend.

    Its parameters name what it reads: z, h, d of the target region, e of the source, each (N, …), and labels y;
    with `readout` z, pooled to the cells of its kernel, and r, the error of the region's own read-out of the
    output. e and r are divided by N where the loss is a mean. Raises UserError (L001, L002).
    """

    def enter(function: Function) -> Function:
        reads = _reads(function, name, ("z", "r") if readout else ("z", "h", "d", "e", "y"))
        able = MATRICES if readout else KERNELS
        wrong = [f"'{k}'" for k in kernels or () if k not in able]
        if wrong:
            message = f"the rule '{name}' cannot be that of {', '.join(wrong)}"
            raise UserError(Fault("L002", message, fix=f"name kernels among {', '.join(able)}"))
        UPDATES.add(SynapseUpdate(name, _about(function), function, reads, kernels or able, readout))
        return function

    return enter


def _about(function: Callable[..., Any]) -> str:
    lines = (inspect.getdoc(function) or "").splitlines()
    return lines[0].rstrip(".") if lines else ""


def _reads(function: Callable[..., Any], name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters
    reads = tuple(parameters)
    unnamed = [f"'{p.name}'" for p in parameters.values() if p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if unnamed:
        message = f"the rule '{name}' cannot be given {', '.join(unnamed)} by name"
        raise UserError(Fault("L002", message, fix=f"name its parameters among {', '.join(known)}"))
    unknown = [f"'{r}'" for r in reads if r not in known]
    if unknown:
        message = f"the rule '{name}' reads {', '.join(unknown)}, which does not exist"
        raise UserError(Fault("L002", message, fix=f"name its parameters among {', '.join(known)}"))
    return reads
