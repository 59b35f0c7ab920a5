"""The wiring file's schema: what a user may write, as pydantic models.

Short forms are normalised before validation: `to: all` is a list of one name, `kernel: dense`
is a kernel without a number, `init: {normal: 0.001}` is a name and a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from reclra_compile.errors import nearest
from reclra_compile.rules.catalogue import INITS, KERNELS, RULES, UPDATES, Entry

ACTIVATIONS = (
    "same", "identity", "relu", "relu6", "leaky_relu", "tanh", "sigmoid", "elu", "selu", "celu",
    "gelu", "silu", "mish", "softplus", "softsign", "hardtanh", "hardsigmoid", "hardswish",
    "logsigmoid", "sign",
)  # fmt: skip


class Strict(BaseModel):
    """Base of all parts: unknown keys are errors, values are frozen, numbers must be finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _error(code: str, message: str, fix: str) -> PydanticCustomError:
    """An error that the loader reports as a fault with these words."""
    return PydanticCustomError(code, "{message}", {"message": message, "fix": fix})


def _known(entries: Mapping[str, Entry], what: str) -> AfterValidator:
    """Accept only the names in `entries`."""

    def check(value: str) -> str:
        if value not in entries:
            raise _error("W004", f"unknown {what} {value[:40]!r}", nearest(value, sorted(entries)))
        return value

    return AfterValidator(check)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would take true for 1
        raise PydanticCustomError("number_type", "a number is needed, not true or false")
    return value


_NUMBER = BeforeValidator(_no_bool)
Count = Annotated[int, Field(ge=1), _NUMBER]
Positive = Annotated[float, Field(gt=0), _NUMBER]
NotNegative = Annotated[float, Field(ge=0), _NUMBER]
OneOrTwo = Annotated[Literal[1, 2], _NUMBER]


def _names(value: Any) -> Any:
    if isinstance(value, str):
        return {"names": [value]}
    return {"names": value} if isinstance(value, list | tuple) else value


def _named_number(key: str, example: str) -> BeforeValidator:
    """Normalise `word`, `{word: number}` and `{word: {option: …}}` to a mapping with `name`."""

    def normalise(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, Mapping) or "name" in value:
            return value
        name, inner = next(iter(value.items()), ("", None))
        if len(value) != 1 or (isinstance(inner, Mapping) and "name" in inner):
            message = f"exactly one name is needed here, not {len(value) if len(value) != 1 else 2}"
            raise _error("W005", message, f"write one word, or {example}")
        return {"name": name, **inner} if isinstance(inner, Mapping) else {"name": name, key: inner}

    return BeforeValidator(normalise)


def _forms(entries: Mapping[str, Entry], key: str, need: str = "", **options: object) -> WithJsonSchema:
    """JSON schema of `word`, `{word: number}`, `{word: {option: …}}` and `{name: word, option: …}`.

    Where `need` is given, it is the only word that has options, and it needs them.
    """
    part: dict[str, Any] = {"type": "object", "additionalProperties": False}
    inner = {"anyOf": [options[key], {**part, "properties": options}]}
    keyed = {name: {**inner, "description": entries[name].about} for name in ([need] if need else entries)}
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

    names: list[str] | None = Field(default=None, min_length=1)
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
            raise _error("W012", message, "choose the regions in one way, for example {every: 3}")
        if self.start is not None and self.every is None:
            raise _error(
                "W012", "'start' is only for 'every'", "write {every: 3, start: 2}, or remove 'start'"
            )
        return self


Selection = Annotated[Selector, BeforeValidator(_names, json_schema_input_type=str | list[str] | Selector)]


class Kernel(Strict):
    """How a pathway's E is stored and applied."""

    name: Annotated[str, _known(KERNELS, "kernel")]
    rank: Annotated[int, _NUMBER] = 0

    @model_validator(mode="after")
    def _rank(self) -> Kernel:
        if self.name == "low_rank" and self.rank < 1:
            code = "W007" if "rank" in self.model_fields_set else "W006"
            raise _error(code, "kernel low_rank needs a rank of at least 1", "write 'kernel: {low_rank: 8}'")
        if self.name != "low_rank" and self.rank:
            fix = f"write 'kernel: {self.name}', or 'kernel: {{low_rank: 8}}'"
            raise _error("W007", f"kernel {self.name} has no rank", fix)
        return self


class Init(Strict):
    """Initial distribution of a pathway's synapses."""

    name: Annotated[str, _known(INITS, "initial distribution")]
    scale: NotNegative = 1.0


class Update(Strict):
    """How a pathway's synapses learn; `gamma` scales it, `growth_limit` bounds ‖E‖ ÷ its initial value."""

    name: Annotated[str, _known(UPDATES, "update")]
    gamma: Positive = 1.0
    growth_limit: Annotated[float, Field(gt=1), _NUMBER] = 100.0


_RANK = {"type": "integer", "minimum": 1}
_SCALE = {"type": "number", "minimum": 0}
_GAMMA = {"type": "number", "exclusiveMinimum": 0}
_GROWTH = {"type": "number", "exclusiveMinimum": 1}
KernelField = Annotated[
    Kernel, _named_number("rank", "{low_rank: 8}"), _forms(KERNELS, "rank", "low_rank", rank=_RANK)
]
InitField = Annotated[Init, _named_number("scale", "{normal: 0.001}"), _forms(INITS, "scale", scale=_SCALE)]
UpdateField = Annotated[
    Update,
    _named_number("gamma", "{kolen_pollack: 0.5}"),
    _forms(UPDATES, "gamma", gamma=_GAMMA, growth_limit=_GROWTH),
]
Rule = Annotated[str, _known(RULES, "target rule"), WithJsonSchema({"enum": list(RULES)})]
_PHI: dict[str, Any] = {"enum": list(ACTIVATIONS)}
_PHIS = {name: Entry(name, "") for name in ACTIVATIONS}
Activation = Annotated[str, _known(_PHIS, "activation"), WithJsonSchema(_PHI)]


class TargetSpec(Strict):
    """Target rule and its options (E2–E4); a part left out keeps the value of the level above."""

    rule: Rule | None = None
    beta: Positive | None = Field(default=None, description="modulation factor β of E3")
    normalize: StrictBool | None = Field(default=None, description="divide the mismatch z − y by β")
    kappa: Positive | None = Field(default=None, description="weight κ of the region's term of D(Θ), E2")
    p: OneOrTwo | None = None
    q: OneOrTwo | None = None
    phi: Activation | None = Field(
        default=None, description="activation used for targets; 'same' is the region's own"
    )
    rescale: StrictBool | None = Field(
        default=None, description="set each sample's d to the length ‖h‖·‖e_L‖"
    )


class PathwaySpec(Strict):
    """Error synapses from some regions to some regions."""

    source: Selection = Field(
        alias="from",
        description="output | next (the following layer) | consumers (each reader of the target, the "
        "model's own edges) | relay (the nearest region downstream that an earlier entry targets) | names",
    )
    to: Selection = Field(description="all | rest (regions no earlier entry targets) | a selector")
    kernel: KernelField | None = None
    init: InitField | None = None
    update: UpdateField | None = None


class Synapses(Strict):
    """Defaults for every pathway that does not say otherwise."""

    kernel: KernelField = Kernel(name="auto")
    init: InitField = Init(name="auto")
    update: UpdateField = Update(name="auto")
    max_entries: Count = Field(default=16_000_000, description="largest dense matrix one pathway may have")


class Override(Strict):
    """Target options for some regions."""

    regions: Selection
    target: TargetSpec


class RegionsSpec(Strict):
    """How the model is partitioned."""

    granularity: Literal["layer"] = "layer"


class TrainingSpec(Strict):
    """Settings `reclra-compile train` uses where no flag is given."""

    optimizer: Literal["sgd", "adam", "adamw"] | None = None
    lr: Positive | None = None
    weight_decay: NotNegative | None = None
    schedule: Literal["constant", "linear", "cosine"] | None = None
    warmup: NotNegative | None = Field(default=None, lt=1, description="share of the run over which the rate rises")
    readout_rate: Positive | None = Field(default=None, description="factor on the rate of local read-outs")
    beta2: NotNegative | None = Field(default=None, lt=1, description="decay of Adam's second moments")
    batch_size: Count | None = None
    epochs: Count | None = None
    clip: NotNegative | None = Field(default=None, description="largest gradient norm; 0 is off")


class TrainingSection(TrainingSpec):
    """Training settings, with exceptions per activation of the model's regions."""

    phi: dict[Activation, TrainingSpec] = Field(
        default_factory=dict, json_schema_extra={"propertyNames": _PHI}
    )


class Wiring(Strict):
    """A wiring file: which error pathways there are and how targets and synapses behave."""

    version: Annotated[Literal[1], _NUMBER]
    name: str = "wiring"
    about: str = ""
    regions: RegionsSpec = RegionsSpec()
    target: TargetSpec = TargetSpec()
    pathways: list[PathwaySpec] = Field(min_length=1)
    synapses: Synapses = Synapses()
    overrides: list[Override] = []
    frozen: Selection | None = Field(default=None, description="regions whose parameters do not learn")
    training: TrainingSection = TrainingSection()


def keys_of(part: type[BaseModel]) -> list[str]:
    """The keys that a part of the file may have, as they are written there."""
    return [f.alias or name for name, f in part.model_fields.items()]


def part_at(path: Sequence[str | int]) -> type[BaseModel]:
    """The part of the schema that describes the mapping at `path` of a file."""
    part: type[BaseModel] = Wiring
    for key in path:
        found = [f for name, f in part.model_fields.items() if key == (f.alias or name)]
        part = (found and _part_in(found[0].annotation)) or part
    return part


def _part_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_part_in, get_args(annotation))), None)
