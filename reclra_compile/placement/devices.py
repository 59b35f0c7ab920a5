"""The devices a user asks for: how many, of which profile, how much memory each."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from pydantic_core import PydanticCustomError

from reclra_compile.cost.measured import KIND
from reclra_compile.errors import Fault, PlacementError
from reclra_compile.ir import Device
from reclra_compile.placement.profiles import ANY, GPU, PEAKS, PRESETS, preset, profile_hint, read_profile
from reclra_compile.spec.parts import number_of_bytes

MOST = 65_536  #: devices that one plan may have
BARE = "cpu"  #: the profile of a number without one
_FORMS = "write a number, cpu:4, cuda:8, h100:4, a100:2,h100:2, or the path of a YAML file"
_FILES = (".yaml", ".yml", ".json")


def parse_devices(
    text: str | int, profile: str | Device | None = None, dtype: str = "float32", memory: str | int | None = None
) -> tuple[Device, ...]:
    """The devices that `text` asks for, in order.

    `text`: "4", "cpu:4", "cuda:8", "h100:4", "a100:2,h100:2", or a file. `profile`: a preset, a file or a device,
    for numbers and for "cpu:N" and "cuda:N". `dtype` chooses among rates, `memory` (bytes, or a text such as 40GiB)
    replaces the memory of each. Raises PlacementError N001, N002 or N003.
    """
    written = str(text).strip()
    if _is_file(written):
        found = list(read_profile(written, dtype))
    else:
        own = _profile(profile, dtype)
        found = [d for part in written.split(",") for d in _part(part.strip(), written, own, dtype)]
    if len(found) > MOST:
        raise PlacementError(Fault("N001", f"{len(found)} devices are more than {MOST}", fix=_FORMS))
    if memory is not None:
        found = [replace(d, memory_bytes=_memory(memory)) for d in found]
    return _named(found)


def assumption(text: str | int, profile: str | None = None) -> str:
    """A line that says which profile stands for devices that name none; empty where all do."""
    written = str(text).strip()
    if profile or _is_file(written):
        return ""
    words = {part.strip().partition(":")[0] for part in written.split(",")}
    notes = []
    if any(w.isdigit() for w in words):
        notes.append(f"a number of devices is of profile {BARE}")
    if words & {"cuda", "gpu"}:
        notes.append(f"cuda is of profile {GPU}")
    return "; ".join(notes) + " (choose with --device-profile)" if notes else ""


def device_index(word: str | int, devices: tuple[Device, ...]) -> int | None:
    """The device that a pin means: its index, its name, or kind:k for the k-th of a kind; None where there is none."""
    text = str(word).strip()
    if text.isdecimal():
        return int(text) if int(text) < len(devices) else None
    names = [d.name for d in devices]
    if text in names:
        return names.index(text)
    kind, _, number = text.partition(":")
    same = [i for i, d in enumerate(devices) if d.kind == kind]
    if number.isdecimal() or (not number and len(same) == 1):
        k = int(number or 0)
        return same[k] if k < len(same) else None
    return None


def _is_file(text: str) -> bool:
    return text.endswith(_FILES) or os.sep in text or os.path.isfile(text)


def _profile(profile: str | Device | None, dtype: str) -> tuple[Device, ...]:
    if profile is None or isinstance(profile, Device):
        return () if profile is None else (profile,)
    if profile == KIND:
        raise PlacementError(Fault("N002", "measured times belong to one model, and are read where it is planned",
                                   fix="plan with `reclra-compile MODEL --device-profile measured --out PLAN` first"))
    return read_profile(profile, dtype) if _is_file(profile) else (preset(profile, dtype),)


def _part(part: str, whole: str, own: tuple[Device, ...], dtype: str) -> list[Device]:
    """The devices of one part of a comma-separated list."""
    found = re.fullmatch(r"(?:([A-Za-z_][\w.-]*)(?::(-?\d+))?|(-?\d+))", part)
    if not found:
        raise PlacementError(Fault("N001", f"'{whole[:60]}' does not say which devices", fix=_FORMS))
    kind, count = found[1], int(found[2] or found[3] or 1)
    if count < 1:
        fix = f"write {kind}:1 for one device" if kind else "write 1 for one device"
        raise PlacementError(Fault("N001", f"'{part}' asks for {count} devices: there has to be one", fix=fix))
    if count > MOST:
        raise PlacementError(Fault("N001", f"'{part}' asks for more than {MOST} devices", fix=_FORMS))
    if kind in (None, "cuda", "gpu", "cpu") and own:
        if len(own) == 1:
            return list(own) * count
        if count > len(own):
            message = f"'{part}' asks for {count} devices, but the profile's file has {len(own)}"
            raise PlacementError(Fault("N001", message, fix=f"ask for at most {len(own)}, or add devices to the file"))
        return list(own[:count])
    kind = {None: BARE, "cuda": GPU, "gpu": GPU}.get(kind, kind)
    if kind not in PRESETS:
        raise PlacementError(Fault("N002", f"there is no device profile '{kind}'", fix=profile_hint(str(kind))))
    return [preset(kind, dtype)] * count


def _memory(memory: str | int) -> int:
    try:
        found = number_of_bytes(memory)
    except PydanticCustomError:
        found = -1
    if not isinstance(found, int) or found <= 0:
        raise PlacementError(Fault("N001", f"{memory!r} is not a memory size", fix="write one such as 40GiB"))
    return found


def _named(devices: list[Device]) -> tuple[Device, ...]:
    """Devices with names of their own where a profile's file gave none: cpu:0, cuda:0, …"""
    counts: dict[str, int] = {}
    taken = {d.name for d in devices if d.name and d.name not in PRESETS}
    named: list[Device] = []
    used: set[str] = set()
    for d in devices:
        if d.name and d.name not in PRESETS and d.name not in used:
            used.add(d.name)
            named.append(d)
            continue
        stem = d.kind if d.kind in ("cpu", ANY) else "cuda" if d.kind in PEAKS else d.kind or "device"
        stem = "device" if stem == ANY else stem
        name = ""
        while not name or name in taken or name in used:
            name = f"{stem}:{counts.get(stem, 0)}"
            counts[stem] = counts.get(stem, 0) + 1
        used.add(name)
        named.append(replace(d, name=name))
    return tuple(named)
