"""The wiring file's schema: the sections of a file and their keys, as pydantic models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator

from reclra_compile.spec.automatic import AskedOf, AutoSpec
from reclra_compile.spec.parts import (
    NUMBER,
    PHI_NAMES,
    SIZE,
    Activation,
    Count,
    Granularity,
    GranularityField,
    Init,
    InitField,
    Kernel,
    KernelField,
    Merge,
    NotNegative,
    OneOrTwo,
    Positive,
    Rule,
    Selection,
    Strict,
    Update,
    UpdateField,
    number_of_bytes,
    schema_error,
)


class SettleSpec(Strict):
    """How rule equilibrium settles (E13); a part left out keeps the value of the level above."""

    free: Count | None = Field(default=None, description="steps of the free phase")
    nudged: Count | None = Field(default=None, description="steps of each nudged phase")
    step: Annotated[float, Field(gt=0, le=1), NUMBER] | None = Field(default=None, description="how far a step goes")
    feedback: Annotated[float, Field(gt=0, le=1), NUMBER] | None = Field(
        default=None, description="factor on what a state hears from above"
    )


class TargetSpec(Strict):
    """Target rule and its options (E2–E4); a part left out keeps the value of the level above."""

    rule: Rule | None = Field(default=None, description="how a displacement becomes an error; default lra")
    beta: Positive | None = Field(
        default=None, description="modulation factor β of E3; default 0.01, 1 under some rules"
    )
    normalize: StrictBool | None = Field(default=None, description="divide the mismatch z − y by β; default true")
    kappa: Positive | None = Field(default=None, description="weight κ of the region's term of D(Θ), E2; default 1")
    p: OneOrTwo | None = Field(default=None, description="norm of the region's term of D(Θ), E2; default 2")
    q: OneOrTwo | None = Field(default=None, description="power of that norm; default 2")
    phi: Activation | None = Field(
        default=None, description="activation used for targets; default same, the region's own"
    )
    rescale: StrictBool | None = Field(
        default=None, description="set each sample's d to the length ‖h‖·‖e_L‖; default false"
    )
    settle: SettleSpec | None = Field(default=None, description="the phases of rule equilibrium")


class PathwaySpec(Strict):
    """Error synapses from some regions to some regions."""

    source: Selection = Field(
        alias="from",
        description="output | next (the following layer) | consumers (each reader of the target, the "
        "model's own edges) | relay (the nearest region downstream that an earlier entry targets) | names",
    )
    to: Selection = Field(description="all | rest (regions no earlier entry targets) | a selector")
    kernel: KernelField | None = Field(default=None, description="how E is stored and applied; default: of `synapses`")
    init: InitField | None = Field(default=None, description="E's first values; default: of `synapses`")
    update: UpdateField | None = Field(default=None, description="how E learns; default: of `synapses`")


class Synapses(Strict):
    """Defaults for every pathway that does not say otherwise."""

    kernel: KernelField = Field(default=Kernel(name="auto"), description="how E is stored and applied")
    init: InitField = Field(default=Init(name="auto"), description="E's first values")
    update: UpdateField = Field(default=Update(name="auto"), description="how E learns")
    max_entries: Count = Field(default=16_000_000, description="largest matrix one pathway may have")
    cells: Count = Field(default=8, description="most cells per axis that `auto` reads a feature map on")
    memory: Annotated[int, Field(gt=0), BeforeValidator(number_of_bytes), WithJsonSchema(SIZE)] | None = Field(
        default=None, description="bytes that the kernels `auto` chooses may take together, such as 256MiB"
    )


class RegionsSpec(Strict):
    """How the model is partitioned."""

    granularity: GranularityField = Field(default=Granularity(), description="layers, blocks, or groups of blocks")
    merge: list[Merge] = Field(default=[], description="globs over region names; what each entry matches is one region")


class Override(Strict):
    """Options for some regions: of their targets, or the wiring inside a block."""

    regions: Selection = Field(description="the regions that this is for")
    target: TargetSpec = Field(default=TargetSpec(), description="options of their targets, in place of the file's")
    inside: Inside | None = Field(default=None, description="the wiring inside these blocks: a name, file, or pathways")

    @model_validator(mode="after")
    def _something(self) -> Override:
        if not self.model_fields_set & {"target", "inside"}:
            raise schema_error("W006", "this override needs the key 'target' or 'inside'", "add 'target: {beta: 0.5}'")
        return self


class TrainingSpec(Strict):
    """Settings `reclra-compile train` uses where no flag is given."""

    optimizer: Literal["sgd", "adam", "adamw"] | None = Field(
        default=None, description="how weights and synapses learn; default adamw"
    )
    lr: Positive | None = Field(default=None, description="learning rate; default 0.001")
    weight_decay: NotNegative | None = Field(default=None, description="decay of weights and synapses; default 0")
    schedule: Literal["constant", "linear", "cosine", "polynomial"] | None = Field(
        default=None, description="how the rate falls to 0 over the run; default constant"
    )
    warmup: NotNegative | None = Field(
        default=None, description="how long the rate rises: below 1 a share of the run, from 1 on epochs; default 0"
    )
    lr_end: NotNegative | None = Field(default=None, description="where the polynomial schedule ends; default 0")
    power: Positive | None = Field(default=None, description="exponent of the polynomial schedule; default 1")
    readout_rate: Positive | None = Field(default=None, description="factor on the rate of local read-outs; default 1")
    inverse_rate: Positive | None = Field(default=None, description="factor on the rate of learned inverses; default 1")
    mirror_rate: Positive | None = Field(default=None, description="factor on the rate of noise-fed mirrors; default 1")
    beta2: NotNegative | None = Field(default=None, lt=1, description="decay of Adam's second moments; default 0.999")
    batch_size: Count | None = Field(default=None, description="samples of a step; default 128")
    epochs: Count | None = Field(default=None, description="passes over the training data; default 10")
    clip: NotNegative | None = Field(default=None, description="largest gradient norm, 0 is off; default 0")


class TrainingSection(TrainingSpec):
    """Training settings, with exceptions per activation of the model's regions."""

    phi: dict[Activation, TrainingSpec] = Field(
        default_factory=dict,
        json_schema_extra={"propertyNames": PHI_NAMES},
        description="an activation → settings for models whose regions mostly have it",
    )


class InnerWiring(Strict):
    """Error pathways among some regions and how their targets and synapses behave: of a model, or inside a block."""

    name: str = Field(default="wiring", description="what reports call it")
    about: str = Field(default="", description="one line, shown by `reclra-compile wirings`")
    regions: RegionsSpec = Field(default=RegionsSpec(), description="what a region is")
    target: TargetSpec = Field(default=TargetSpec(), description="target rule and its options, for all regions")
    pathways: list[PathwaySpec] = Field(min_length=1, description="who hears whom; or `auto` in place of it")
    synapses: Synapses = Field(default=Synapses(), description="defaults for all pathways")
    overrides: list[Override] = Field(default=[], description="options for some regions; later entries win")
    frozen: Selection | None = Field(default=None, description="regions whose parameters do not learn")
    inside: Inside | None = Field(
        default=None, description="the wiring inside each block: a shipped name, a file, or pathways; backprop is exact"
    )


class MemorySpec(Strict):
    """What the forward pass may keep for the weight updates."""

    activations: Annotated[int, Field(gt=0), BeforeValidator(number_of_bytes), WithJsonSchema(SIZE)] | None = Field(
        default=None, description="bytes kept inside regions; beyond them regions run their forward pass again"
    )
    recompute: Selection | None = Field(default=None, description="regions that run their forward pass again")


class ScheduleSpec(Strict):
    """What devices a plan is made for, and how a batch is cut; the command line and `compile` may say otherwise."""

    devices: Annotated[int | str, NUMBER] | None = Field(
        default=None, description="how many devices, or which: 4, cpu:4, h100:8, a100:2,h100:2"
    )
    microbatches: Count | None = Field(default=None, description="parts of a batch that follow each other")
    staleness: Annotated[Literal[0, 1], NUMBER] | None = Field(
        default=None, description="1: gradients at the weights before the last update, so that batches overlap"
    )


def _device(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


DeviceName = Annotated[str, BeforeValidator(_device, json_schema_input_type=int | str)]


class NamedWiring(InnerWiring):
    """A wiring that stands in another file: `reference` is its shipped name or path."""

    reference: str


def _by_name(value: Any) -> Any:
    return NamedWiring.model_construct(reference=value, name=value) if isinstance(value, str) else value


Inside = Annotated[InnerWiring, BeforeValidator(_by_name, json_schema_input_type=str | InnerWiring)]


class Wiring(InnerWiring):
    """A wiring file: which error pathways there are and how targets and synapses behave."""

    version: Annotated[Literal[1], NUMBER] = Field(description="of this format")
    memory: MemorySpec = Field(default=MemorySpec(), description="what the forward pass may keep")
    schedule: ScheduleSpec = Field(default=ScheduleSpec(), description="devices, microbatches, staleness")
    placement: dict[str, DeviceName] = Field(
        default_factory=dict, description="globs over region names → the device (name or number) they have to be on"
    )
    training: TrainingSection = Field(
        default=TrainingSection(), description="settings of `reclra-compile train`; one's own loop ignores them"
    )
    auto: AutoSpec | None = Field(default=None, description="in place of `pathways`: let the compiler choose them")


class AutoWiring(Wiring):
    """A wiring file that leaves the pathways to the compiler."""

    pathways: list[PathwaySpec] = Field(default=[])
    auto: AskedOf


def keys_of(part: type[BaseModel]) -> list[str]:
    """The keys that a part of the file may have, as they are written there."""
    keys = [f.alias or name for name, f in part.model_fields.items()]
    return sorted(keys, key=lambda k: k != "version")  # the first line of a file is the first key that is named


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
