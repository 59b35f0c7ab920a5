"""Device profiles: presets from public datasheets, and files with one's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import PydanticCustomError

from reclra_compile.cost.files import is_measured, read_measured
from reclra_compile.errors import Fault, Location, PlacementError, WiringError, nearest
from reclra_compile.ir import Device
from reclra_compile.spec.parts import number_of_bytes
from reclra_compile.spec.yaml_marks import KeyPath, read_text, read_yaml

DTYPES = ("float32", "tf32", "bfloat16", "float16", "float64")
FLOPS_SHARE = 0.6  #: of the datasheet's peak that large matrix products reach
BYTES_SHARE = 0.8  #: of the datasheet's memory bandwidth that elementwise operations reach
LINK_SHARE = 0.8  #: of the link's rate in one direction
MEMORY_SHARE = 0.9  #: of the memory that values may take: the rest is context, workspaces, fragments


@dataclass(frozen=True, slots=True)
class Peak:
    """A datasheet's numbers, dense (no sparsity): TFLOP/s by dtype, GB/s, GB, and the link in one direction."""

    tflops: Mapping[str, float]
    memory_gb_s: float
    memory_gb: float
    link_gb_s: float
    link_latency_us: float
    task_us: float


_CPU = {"float32": 0.096, "tf32": 0.096, "bfloat16": 0.096, "float16": 0.096, "float64": 0.048}
_AMPERE = {"float32": 19.5, "tf32": 156.0, "bfloat16": 312.0, "float16": 312.0, "float64": 19.5}
_HOPPER = {"float32": 67.0, "tf32": 494.5, "bfloat16": 989.5, "float16": 989.5, "float64": 67.0}
#: float32 is without TF32, torch's default for matrix products; float64 uses the tensor cores, as cuBLAS does
PEAKS: dict[str, Peak] = {
    "cpu": Peak(_CPU, 12.0, 0.0, 4.0, 20.0, 30.0),
    "a100": Peak(_AMPERE, 2039.0, 80.0, 300.0, 10.0, 15.0),
    "h100": Peak(_HOPPER, 3350.0, 80.0, 450.0, 10.0, 12.0),
    "h200": Peak(_HOPPER, 4800.0, 141.0, 450.0, 10.0, 12.0),
}
ANY = "any"  #: no limits: times count FLOPs
GPU = "h100"  #: what cuda:N stands for where no profile is named
PRESETS = (*PEAKS, ANY)

_FIELDS = ("flops_per_s", "bytes_per_s", "memory_bytes", "link_bytes_per_s", "link_latency_us", "task_us")
_KEYS = ("name", "kind", "profile", "count", *_FIELDS)


def preset(name: str, dtype: str = "float32") -> Device:
    """The preset called `name` at precision `dtype`; raises PlacementError N002 where there is none."""
    if dtype not in DTYPES:
        raise PlacementError(Fault("N002", f"no profile has rates for dtype '{dtype}'", fix=nearest(dtype, DTYPES)))
    if name == ANY:
        return Device(name=ANY, kind=ANY)
    if name not in PEAKS:
        raise PlacementError(Fault("N002", f"there is no device profile '{name}'", fix=profile_hint(name)))
    p = PEAKS[name]
    return Device(
        name=name, kind=name, flops_per_s=p.tflops[dtype] * 1e12 * FLOPS_SHARE,
        bytes_per_s=p.memory_gb_s * 1e9 * BYTES_SHARE, memory_bytes=int(p.memory_gb * 1e9 * MEMORY_SHARE),
        link_bytes_per_s=p.link_gb_s * 1e9 * LINK_SHARE, link_latency_us=p.link_latency_us, task_us=p.task_us,
    )  # fmt: skip


def profile_hint(name: str) -> str:
    """How to name a profile that exists, near to `name`."""
    return f"{nearest(name, PRESETS)}; or give the path of a file"


def read_profile(file: str, dtype: str = "float32") -> tuple[Device, ...]:
    """The devices of a YAML or JSON file, in order; raises PlacementError N003 with every fault.

    The file has the fields of `ir.Device` for one device, or a mapping of them below `device:`, or a list of such
    mappings below `devices:` or on its own; other keys beside `device:` and `devices:` are left alone. Of a file that
    `reclra-compile profile` has written it is the machine with its fitted rates; raises CostError (C001–C003).
    """
    if is_measured(file):
        return (read_measured(file).device,)
    try:
        document = read_yaml(read_text(file), file)
    except WiringError as error:
        raise PlacementError(Fault("N003", f.message, f.where or Location(file), f.fix) for f in error.faults) from None
    faults = [Fault("N003", f.message, f.where or Location(file), f.fix) for f in document.faults]
    data: Any = document.data
    path: KeyPath = ()
    if isinstance(data, Mapping) and "format" in data:
        message = f"this is no file of devices: its format is {str(data['format'])[:60]!r}"
        fix = "give a file that `reclra-compile profile --out` wrote, or one with the fields of a device"
        faults.append(Fault("N003", message, document.marks.get(("format",), Location(file)), fix))
    if isinstance(data, Mapping):
        path = next(((k,) for k in ("devices", "device") if k in data), ())
        data = data[path[0]] if path else data
    entries = [(path, data)] if not isinstance(data, list) else [((*path, i), e) for i, e in enumerate(data)]
    found: list[Device] = []
    for at, entry in entries:
        where = document.marks.get(at, Location(file))
        if not isinstance(entry, Mapping):
            fix = "write fields such as {profile: h100, count: 4, memory_bytes: 40GiB}"
            faults.append(Fault("N003", "a device is a mapping of its fields", where, fix))
            continue
        reader = _Entry(entry, at, document.marks, where, dtype)
        found += reader.devices()
        faults += reader.faults
    if not faults and not found:
        faults = [Fault("N003", "the file names no device", Location(file), "write 'devices:' and a list")]
    if faults:
        raise PlacementError(faults)
    return tuple(found)


class _Entry:
    """Reads one entry of a file and keeps its faults."""

    def __init__(
        self, data: Mapping[Any, Any], path: KeyPath, marks: Mapping[KeyPath, Location], where: Location, dtype: str
    ) -> None:
        self.data, self.path, self.marks, self.where, self.dtype = data, path, marks, where, dtype
        self.faults: list[Fault] = []

    def devices(self) -> list[Device]:
        for key in self.data:
            if key not in _KEYS:
                self._fault(key, f"unknown key '{key}' of a device", nearest(str(key), _KEYS))
        base = Device(name="", kind="own")
        if "profile" in self.data:
            try:
                base = preset(str(self.data["profile"]), self.dtype)
            except PlacementError as error:
                self._fault("profile", error.faults[0].message, error.faults[0].fix)
        changes: dict[str, Any] = {k: str(self.data[k]) for k in ("kind", "name") if k in self.data}
        changes.setdefault("name", "")
        for key in (k for k in _FIELDS if k in self.data):
            value = self._number(key, self.data[key])
            if value is not None:
                changes[key] = int(value) if key == "memory_bytes" else value
        count = self.data.get("count", 1)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            self._fault("count", f"'count' must be a whole number from 1 on, not {count!r}", "leave it out for one")
            count = 1
        device = replace(base, **changes)
        if count > 1 and device.name:
            return [replace(device, name=f"{device.name}:{k}") for k in range(count)]
        return [device] * count

    def _number(self, key: str, value: Any) -> float | None:
        if key == "flops_per_s" and isinstance(value, Mapping):
            if self.dtype not in value:
                known = ", ".join(map(str, value))
                self._fault(key, f"no rate for dtype {self.dtype}", f"the file has {known}")
                return None
            value = value[self.dtype]
        try:
            found = number_of_bytes(value) if key == "memory_bytes" else value
            number = float(found) if not isinstance(found, bool) else math.nan
        except (TypeError, ValueError, PydanticCustomError):
            number = math.nan
        if math.isfinite(number) and number >= 0:
            return number
        self._fault(key, f"'{key}' must be a number from 0 on, not {value!r}", "0 is unlimited")
        return None

    def _fault(self, key: Any, message: str, fix: str) -> None:
        self.faults.append(Fault("N003", message, self.marks.get((*self.path, key), self.where), fix))
