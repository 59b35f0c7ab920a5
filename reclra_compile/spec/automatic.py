"""The wiring file's section `auto:`, which leaves the error pathways to the compiler."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator

from reclra_compile.spec.parts import NUMBER, SIZE, Count, Strict, number_of_bytes, schema_error

_COUNT = {"type": "integer", "minimum": 1}
_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 1}
DEVICES = "devices"  #: `groups: devices` makes as many groups as there are devices


def _bottlenecks(value: Any) -> int | tuple[str, ...]:
    """A number of relays, or names; a single name is a list of one."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    return _number(value, "bottlenecks", "write a number such as 3, or a list of region names")


def _groups(value: Any) -> int | str:
    return DEVICES if value == DEVICES else _number(value, "groups", "write 'groups: devices', or a number such as 4")


def _number(value: Any, key: str, fix: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise schema_error("W005", f"'{key}' cannot be {str(value)[:40]!r}", fix)
    if value < 1:
        raise schema_error("W007", f"'{key}' must be at least 1, not {value}", fix)
    return value


class AutoSpec(Strict):
    """What the compiler is asked to choose pathways for, and what it is bound to."""

    depth: Count | None = Field(default=None, description="most waves below the output; else 1 and 2 are compared")
    bottlenecks: Annotated[
        int | tuple[str, ...], PlainValidator(_bottlenecks),
        WithJsonSchema({"anyOf": [_COUNT, {"type": "string"}, _NAMES]}),
    ] | None = Field(default=None, description="how many relays, or which (names or globs)")  # fmt: skip
    devices: Annotated[int | str, NUMBER] | None = Field(
        default=None, description="how many devices, or which: 4, cpu:4, h100:8"
    )
    profile: str | None = Field(default=None, description="profile of the devices: a preset or a file")
    microbatches: Count | None = Field(default=None, description="parts of a batch that follow each other")
    synapse_memory: Annotated[int, Field(gt=0), BeforeValidator(number_of_bytes), WithJsonSchema(SIZE)] | None = Field(
        default=None, description="bytes that all error synapses may take, such as 2GiB"
    )
    groups: Annotated[
        int | str, PlainValidator(_groups), WithJsonSchema({"anyOf": [_COUNT, {"const": DEVICES}]})
    ] | None = Field(
        default=None, description="decoupled groups of blocks, exact inside: a number, or `devices`"
    )  # fmt: skip

    @model_validator(mode="after")
    def _agrees(self) -> AutoSpec:
        if self.groups is not None:
            given = [k for k in ("depth", "bottlenecks", "synapse_memory") if getattr(self, k) is not None]
            if given:
                message = f"'groups' hear only the output, so that {' and '.join(given)} cannot be asked for"
                raise schema_error("W046", message, f"remove 'groups', or remove {' and '.join(given)}")
        if self.bottlenecks is not None and self.depth == 1:
            many = self.bottlenecks if isinstance(self.bottlenecks, int) else len(self.bottlenecks)
            message = f"depth 1 has no relays, but {many} bottlenecks are asked for"
            raise schema_error("W046", message, "write 'depth: 2', or remove 'bottlenecks'")
        return self


AskedOf = Annotated[AutoSpec, BeforeValidator(lambda value: {} if value is None else value)]
