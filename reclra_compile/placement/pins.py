"""Which regions have to be on one device, and which on a given one: tied weights and pins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from reclra_compile.errors import Fault, Location, PlacementError, nearest
from reclra_compile.ir import Device, Region
from reclra_compile.placement.devices import device_index

Pins = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Unit:
    """Regions (by position in the model) that go to one device, because they share parameters; `pinned` to device d."""

    regions: tuple[int, ...]
    pinned: int | None = None


def parse_pins(texts: Sequence[str]) -> dict[str, str]:
    """Pins written GLOB=DEVICE, as on the command line; raises PlacementError (N006) with every malformed one."""
    faults = [
        Fault("N006", f"'{t}' is not a pin", fix="write GLOB=DEVICE, such as 'head.*=cuda:0'")
        for t in texts
        if not all(part.strip() for part in t.rpartition("="))
    ]
    if faults:
        raise PlacementError(faults)
    return {glob.strip(): word.strip() for glob, _, word in (t.rpartition("=") for t in texts)}


def units(
    regions: Sequence[Region], pins: Pins, devices: tuple[Device, ...], places: Mapping[str, Location] | None = None
) -> tuple[Unit, ...]:
    """The units of a model in the order of their first regions; raises PlacementError (N006, N007) with every fault.

    A pin matches regions by name, or by the name of a block around them; where several match, the last wins. `places`
    says where pins stand in a file.
    """
    where = (places or {}).get
    faults: list[Fault] = []
    pinned: dict[int, tuple[int, str]] = {}
    for glob, word in pins.items():
        device = device_index(word, devices)
        if device is None:
            faults.append(replace(_no_device(glob, word, devices), where=where(glob)))
        matched = [i for i, r in enumerate(regions) if any(fnmatchcase(n, glob) for n in (r.name, *r.within))]
        if not matched:
            fix = nearest(glob, [r.name for r in regions])
            faults.append(Fault("N006", f"the pin '{glob}' matches no region", where(glob), fix))
        elif device is not None:
            pinned.update(dict.fromkeys(matched, (device, glob)))
    found: list[Unit] = []
    for members in tied(regions):
        wanted = {pinned[i][0]: i for i in members if i in pinned}
        if len(wanted) > 1:
            (a, i), (b, j), *_ = sorted(wanted.items())
            shared = sorted({p for k in members for p in regions[k].parameters if _shares(p, regions, members)})
            faults.append(
                Fault(
                    "N007",
                    f"'{regions[i].name}' is pinned to {devices[a].name} (by '{pinned[i][1]}') and '{regions[j].name}' "
                    f"to {devices[b].name} (by '{pinned[j][1]}'), but they share '{shared[0]}'",
                    where(pinned[j][1]),
                    f"pin both to {devices[a].name}, or leave one of the pins out",
                )
            )
        found.append(Unit(members, next(iter(wanted), None)))
    if faults:
        raise PlacementError(faults)
    return tuple(found)


def tied(regions: Sequence[Region]) -> list[tuple[int, ...]]:
    """Regions by position, those that share a parameter (directly or through others) together."""
    group = list(range(len(regions)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    owner: dict[str, int] = {}
    for i, r in enumerate(regions):
        for p in r.parameters:
            first = root(owner.setdefault(p, i))
            other = root(i)
            group[max(first, other)] = min(first, other)
    members: dict[int, list[int]] = {}
    for i in range(len(regions)):
        members.setdefault(root(i), []).append(i)
    return [tuple(m) for m in members.values()]


def _shares(parameter: str, regions: Sequence[Region], members: Sequence[int]) -> bool:
    return sum(parameter in regions[k].parameters for k in members) > 1


def _no_device(glob: str, word: str | int, devices: tuple[Device, ...]) -> Fault:
    names = [d.name for d in devices]
    last = len(devices) - 1
    number = str(word).rpartition(":")[2]
    if number.isdecimal() and int(number) > last:
        fix = f"the last is {names[last]} (number {last})"
    else:
        fix = f"{nearest(str(word), names)}; or a number from 0 to {last}"
    return Fault("N006", f"the pin '{glob}' names device '{word}', which is not among the {last + 1}", fix=fix)
