"""The parts that a wiring file's schema is made of: selectors, kernels, initial values, sizes, and their short forms.

Short forms are normalised before validation: `to: all` is a list of one name, `kernel: dense`
is a kernel without a number, `init: {normal: 0.001}` is a name and a number.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from reclra_compile.errors import nearest
from reclra_compile.rules.catalogue import AUTO_UPDATE, GRANULARITIES, INITS, KERNELS, NOISE, TARGETS, UPDATES, Entry

ACTIVATIONS = (
    "same", "identity", "relu", "relu6", "leaky_relu", "tanh", "sigmoid", "elu", "selu", "celu",
    "gelu", "silu", "mish", "softplus", "softsign", "hardtanh", "hardsigmoid", "hardswish",
    "logsigmoid", "sign",
)  # fmt: skip


class Strict(BaseModel):
    """Base of all parts: unknown keys are errors, values are frozen, numbers must be finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def schema_error(code: str, message: str, fix: str) -> PydanticCustomError:
    """An error that the loader reports as a fault with these words."""
    return PydanticCustomError(code, "{message}", {"message": message, "fix": fix})


def _known(entries: Mapping[str, Any], what: str) -> AfterValidator:
    """Accept only the names in `entries`."""

    def check(value: str) -> str:
        if value not in entries:
            raise schema_error("W004", f"unknown {what} {value[:40]!r}", nearest(value, sorted(entries)))
        return value

    return AfterValidator(check)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would take true for 1
        raise PydanticCustomError("number_type", "a number is needed, not true or false")
    return value


NUMBER = BeforeValidator(_no_bool)
Count = Annotated[int, Field(ge=1), NUMBER]
Positive = Annotated[float, Field(gt=0), NUMBER]
NotNegative = Annotated[float, Field(ge=0), NUMBER]
OneOrTwo = Annotated[Literal[1, 2], NUMBER]


def _names(value: Any) -> Any:
    if isinstance(value, str):
        return {"names": [value]}
    return {"names": value} if isinstance(value, list | tuple) else value


def _named_number(key: str, example: str, **keys: str) -> BeforeValidator:
    """Normalise `word`, `{word: number}` and `{word: {option: …}}` to a mapping with `name`.

    The number is the option `key`, or that which `keys` gives for the word.
    """

    def normalise(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, Mapping) or "name" in value:
            return value
        name, inner = next(iter(value.items()), ("", None))
        if len(value) != 1 or (isinstance(inner, Mapping) and "name" in inner):
            message = f"exactly one name is needed here, not {len(value) if len(value) != 1 else 2}"
            raise schema_error("W005", message, f"write one word, or {example}")
        return {"name": name, **inner} if isinstance(inner, Mapping) else {"name": name, keys.get(name, key): inner}

    return BeforeValidator(normalise)


def _forms(
    entries: Mapping[str, Any], key: str, need: str = "", takes: Mapping[str, str] | None = None, **options: object
) -> WithJsonSchema:
    """JSON schema of `word`, `{word: number}`, `{word: {option: …}}` and `{name: word, option: …}`.

    Where `need` is given, that word needs its option. `takes` gives the option of each word that has one;
    without it all have `key`, or only `need` where there is one.
    """
    part: dict[str, Any] = {"type": "object", "additionalProperties": False}
    takes = takes or dict.fromkeys([need] if need else entries, key)

    def inner(option: str) -> dict[str, Any]:
        allowed = {k: v for k, v in options.items() if k == option or (option == key and k not in takes.values())}
        return {"anyOf": [options[option], {**part, "properties": allowed}]}

    keyed = {name: {**inner(option), "description": entries[name].about} for name, option in takes.items()}
    named = {"name": {"enum": list(entries)}, **options}
    return WithJsonSchema(
        {
            "anyOf": [
                {"enum": [name for name in entries if name != need]},
                {**part, "properties": keyed, "minProperties": 1, "maxProperties": 1},
                {**part, "properties": named, "required": ["name"]},
            ]
        }
    )


class Selector(Strict):
    """Regions by name or glob (`all`, `rest` are names too), by layer number, by width or by activation.

    Layers are numbered from 1 in the model's order, as in the paper; the output region is the last.
    """

    names: list[str] | None = Field(default=None, min_length=1, description="names or globs, as the short form has")
    every: Count | None = Field(default=None, description="layers whose number is a multiple of this")
    start: Count | None = Field(default=None, description="with `every`: count from this layer instead")
    layers: list[Count] | None = Field(default=None, min_length=1, description="layer numbers, from 1")
    narrowest: Count | None = Field(default=None, description="this many regions with the fewest neurons")
    phi: str | None = Field(default=None, description="regions with this activation")

    @model_validator(mode="after")
    def _one(self) -> Selector:
        given = [k for k in ("names", "every", "layers", "narrowest", "phi") if getattr(self, k) is not None]
        if len(given) != 1:
            has = " and ".join(given) or "nothing"
            message = (
                f"this selector has {has}, but needs exactly one of names, every, layers, narrowest and phi"
            )
            raise schema_error("W012", message, "choose the regions in one way, for example {every: 3}")
        if self.start is not None and self.every is None:
            raise schema_error(
                "W012", "'start' is only for 'every'", "write {every: 3, start: 2}, or remove 'start'"
            )
        return self


Selection = Annotated[Selector, BeforeValidator(_names, json_schema_input_type=str | list[str] | Selector)]


class Kernel(Strict):
    """How a pathway's E is stored and applied; low_rank has a rank, spatial a number of cells per axis."""

    name: Annotated[str, _known(KERNELS, "kernel")]
    rank: Annotated[int, NUMBER] = 0
    cells: Annotated[int, NUMBER] = 0

    @model_validator(mode="after")
    def _fits(self) -> Kernel:
        needs = (("low_rank", "rank", "a rank of at least 1"), ("spatial", "cells", "at least 1 cell per axis"))
        for word, option, least in needs:
            value, given = getattr(self, option), option in self.model_fields_set
            if self.name == word and value < 1 and (given or word == "low_rank"):
                fix = f"write 'kernel: {{{word}: {8 if option == 'rank' else 4}}}'"
                raise schema_error("W007" if given else "W006", f"kernel {word} needs {least}", fix)
            if self.name != word and value:
                fix = f"write 'kernel: {self.name}', or 'kernel: {{{word}: {8 if option == 'rank' else 4}}}'"
                raise schema_error("W007", f"kernel {self.name} has no {option}", fix)
        return self


class Init(Strict):
    """Initial distribution of a pathway's synapses."""

    name: Annotated[str, _known(INITS, "initial distribution")]
    scale: NotNegative = 1.0


class Update(Strict):
    """How a pathway's synapses learn; `gamma` scales it, `growth_limit` bounds ‖E‖ ÷ its initial value.

    `noise` is the deviation of what autoencoding and weight_mirror send through, where it is given.
    """

    name: Annotated[str, _known(ChainMap({"auto": AUTO_UPDATE}, UPDATES), "update")]
    gamma: Positive = 1.0
    growth_limit: Annotated[float, Field(gt=1), NUMBER] = 100.0
    noise: NotNegative | None = None

    @model_validator(mode="after")
    def _noisy(self) -> Update:
        if self.noise == 0 and self.name == "weight_mirror":
            raise schema_error("W007", "mirror mode needs noise", "write 'update: {weight_mirror: {noise: 1}}'")
        if self.noise is not None and self.name not in NOISE:
            message = f"update {self.name} has no noise"
            raise schema_error("W007", message, f"only {' and '.join(NOISE)} have")
        return self


_RANK = {"type": "integer", "minimum": 1}
_SCALE = {"type": "number", "minimum": 0}
_GAMMA = {"type": "number", "exclusiveMinimum": 0}
_GROWTH = {"type": "number", "exclusiveMinimum": 1}
KernelField = Annotated[
    Kernel,
    _named_number("rank", "{low_rank: 8}", spatial="cells"),
    _forms(KERNELS, "rank", "low_rank", {"low_rank": "rank", "spatial": "cells"}, rank=_RANK, cells=_RANK),
]
InitField = Annotated[Init, _named_number("scale", "{normal: 0.001}"), _forms(INITS, "scale", scale=_SCALE)]
UpdateField = Annotated[
    Update,
    _named_number("gamma", "{kolen_pollack: 0.5}", **dict.fromkeys(NOISE, "noise")),
    _forms({"auto": AUTO_UPDATE, **UPDATES.known}, "gamma", gamma=_GAMMA, growth_limit=_GROWTH, noise=_SCALE),
]
Rule = Annotated[str, _known(TARGETS, "target rule"), WithJsonSchema({"enum": list(TARGETS.known)})]
PHI_NAMES: dict[str, Any] = {"enum": list(ACTIVATIONS)}
_PHIS = {name: Entry(name, "") for name in ACTIVATIONS}
Activation = Annotated[str, _known(_PHIS, "activation"), WithJsonSchema(PHI_NAMES)]


class Granularity(Strict):
    """What a region is; `count` is the number of groups."""

    name: Annotated[str, _known(GRANULARITIES, "granularity")] = "layer"
    count: Annotated[int, NUMBER] = 0

    @model_validator(mode="after")
    def _count(self) -> Granularity:
        if self.name == "groups" and self.count < 1:
            message = "granularity groups needs their number, at least 1"
            raise schema_error("W006", message, "write 'granularity: {groups: 2}'")
        if self.name != "groups" and self.count:
            raise schema_error("W007", f"granularity {self.name} has no number", f"write 'granularity: {self.name}'")
        return self


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


GranularityField = Annotated[
    Granularity,
    _named_number("count", "{groups: 2}"),
    _forms(GRANULARITIES, "count", "groups", count={"type": "integer", "minimum": 1}),
]
Merge = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str]), Field(min_length=1)]


SIZE: dict[str, Any] = {"type": ["integer", "string"], "pattern": r"^\d+(\.\d+)? ?([kKMGT]i?)?B?$"}
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def number_of_bytes(value: Any) -> Any:
    """The number of bytes in a text such as 256MiB; other values are left to the check that follows."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kKMGT]i?)?B?", value) if isinstance(value, str) else None
    if isinstance(value, str):
        unit = ((found and found[2]) or "").replace("K", "k").replace("ki", "Ki")
        if not found or unit not in _UNITS:
            fix = "write a number of bytes, or one such as 256MiB"
            raise schema_error("W005", f"{value[:40]!r} is not a size", fix)
        return int(float(found[1]) * _UNITS[unit])
    return _no_bool(value)
