"""What a plan is made for: devices, microbatches, staleness, and where regions are pinned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from reclra_compile.errors import Location
from reclra_compile.ir import Device
from reclra_compile.placement.devices import parse_devices
from reclra_compile.spec.load import Loaded
from reclra_compile.spec.schema import ScheduleSpec, Wiring

Devices = int | str | Sequence[Device]


@dataclass(frozen=True, slots=True)
class Machine:
    """Devices, or what names them, and how a batch is run on them; None is what the wiring says.

    `devices`: a number, a text such as "h100:8", or devices; `profile` is the preset or file that numbers are of.
    `pins` maps globs over region names to devices; `places` says where those of a wiring stand in its file.
    """

    devices: Devices | None = None
    microbatches: int | None = None
    staleness: int | None = None
    pins: Mapping[str, str | int] = field(default_factory=lambda: MappingProxyType({}))
    profile: str | None = None
    memory: str | int | None = None
    places: Mapping[str, Location] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    @property
    def asked(self) -> bool:
        """True where anything is said."""
        return self != Machine()

    def over(self, loaded: Loaded) -> Machine:
        """This machine with what the wiring says where this says nothing."""
        wiring = loaded.wiring if isinstance(loaded.wiring, Wiring) else None
        said = wiring.schedule if wiring else ScheduleSpec()
        pins = wiring.placement if wiring else {}
        places = {glob: where for glob in pins if glob not in self.pins and (where := loaded.where("placement", glob))}
        return Machine(
            devices=said.devices if self.devices is None else self.devices,
            microbatches=said.microbatches if self.microbatches is None else self.microbatches,
            staleness=said.staleness if self.staleness is None else self.staleness,
            pins={**pins, **self.pins},
            profile=self.profile,
            memory=self.memory,
            places=places,
        )

    def options(self) -> dict[str, Any]:
        """The same as arguments of `compile`."""
        given = self.devices is not None or self.profile is not None or self.memory is not None
        return {
            "devices": self.named("float32") if given else None,
            "microbatches": self.microbatches,
            "staleness": self.staleness,
            "placement": self.pins,
        }

    def named(self, dtype: str) -> tuple[Device, ...]:
        """The devices, with the rates of `dtype`; raises PlacementError (N001–N003)."""
        if self.devices is not None and not isinstance(self.devices, int | str):
            return tuple(self.devices)
        return parse_devices(1 if self.devices is None else self.devices, self.profile, dtype, self.memory)
