"""What a plan is made for: devices, microbatches, staleness, and where regions are pinned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TypeGuard

from reclra_compile.errors import Fault, Location, PlacementError
from reclra_compile.ir import Device
from reclra_compile.placement.devices import parse_devices
from reclra_compile.spec.load import Loaded
from reclra_compile.spec.schema import ScheduleSpec, Wiring

Devices = int | str | Sequence[Device]
MOST_PARTS = 65_536  #: microbatches that a batch may have


@dataclass(frozen=True, slots=True)
class Machine:
    """Devices, or what names them, and how a batch is run on them; None is what the wiring says.

    `devices`: a number, a text such as "h100:8", or devices; `profile` is the preset or file that numbers are of.
    `pins` maps globs over region names to devices; `places` says where those of a wiring stand in its file. Raises
    PlacementError (N001, N009) for values that these cannot be.
    """

    devices: Devices | None = None
    microbatches: int | None = None
    staleness: int | None = None
    pins: Mapping[str, str | int] = field(default_factory=lambda: MappingProxyType({}))
    profile: str | None = None
    memory: str | int | None = None
    places: Mapping[str, Location] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    def __post_init__(self) -> None:
        faults = [
            Fault("N009", f"{name} {value!r} is not {what}")
            for name, value, what, good in (
                ("microbatches", self.microbatches, f"a whole number from 1 to {MOST_PARTS:,}",
                 _whole(self.microbatches) and 1 <= int(self.microbatches or 0) <= MOST_PARTS),
                ("staleness", self.staleness, "0 or 1", _whole(self.staleness) and self.staleness in (0, 1)),
                ("devices", self.devices, "a number, a text such as 'h100:8', or a list of Devices",
                 isinstance(self.devices, str) or _whole(self.devices) or _devices(self.devices)),
                ("placement", self.pins, "a mapping from globs over region names to devices", _pins(self.pins)),
            )
            if value is not None and not good
        ]  # fmt: skip
        if not faults and _devices(self.devices):
            faults = [Fault("N001", text) for text in wrong_devices(self.devices)]
        if faults:
            raise PlacementError(faults)

    @property
    def asked(self) -> bool:
        """True where anything is said."""
        return self != Machine()

    def over(self, loaded: Loaded) -> Machine:
        """This machine with what the wiring says where this says nothing; raises PlacementError for devices there."""
        wiring = loaded.wiring if isinstance(loaded.wiring, Wiring) else None
        said = wiring.schedule if wiring else ScheduleSpec()
        pins = wiring.placement if wiring else {}
        places = {glob: where for glob in pins if glob not in self.pins and (where := loaded.where("placement", glob))}
        machine = replace(
            self,
            devices=said.devices if self.devices is None else self.devices,
            microbatches=said.microbatches if self.microbatches is None else self.microbatches,
            staleness=said.staleness if self.staleness is None else self.staleness,
            pins={**pins, **self.pins},
            places=places,
        )
        if self.devices is None and said.devices is not None and self.profile is None:
            try:
                machine.named("float32")
            except PlacementError as error:
                where = loaded.where("schedule", "devices")
                raise PlacementError(replace(f, where=f.where or where) for f in error.faults) from error
        return machine

    def named(self, dtype: str) -> tuple[Device, ...]:
        """The devices, with the rates of `dtype`; raises PlacementError (N001–N003)."""
        if self.devices is not None and not isinstance(self.devices, int | str):
            return tuple(self.devices)
        return parse_devices(1 if self.devices is None else self.devices, self.profile, dtype, self.memory)


def wrong_devices(devices: Sequence[Device]) -> list[str]:
    """What is wrong with the numbers and names of devices, in sentences."""
    faults = [f"device '{n}' is there {k} times" for n, k in Counter(d.name for d in devices).items() if k > 1]
    for d in devices:
        for f in fields(d):
            value = getattr(d, f.name)
            if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
                faults.append(f"device '{d.name}' has {f.name} {value}")
    return faults


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _devices(value: object) -> TypeGuard[Sequence[Device]]:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(d, Device) for d in value)


def _pins(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(glob, str) and (isinstance(at, str) or _whole(at)) for glob, at in value.items()
    )
