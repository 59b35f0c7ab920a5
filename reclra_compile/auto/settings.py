"""What is around the pathways: what a region is, which shipped wiring the settings come from, and the devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import networkx as nx

from reclra_compile.auto.write import plain
from reclra_compile.cost.files import is_measured, read_measured
from reclra_compile.cost.measured import KIND as MEASURED
from reclra_compile.ir import Device, Region
from reclra_compile.machine import Machine
from reclra_compile.placement.devices import parse_devices
from reclra_compile.spec.automatic import DEVICES, AutoSpec
from reclra_compile.spec.blocks import Group, blocks, groups
from reclra_compile.spec.load import Loaded, load_wiring
from reclra_compile.spec.parts import Granularity
from reclra_compile.spec.schema import AutoWiring, Wiring

FEWEST_BLOCKS = 3  #: a model of fewer blocks is wired by layers: there would be no relays


def asked_of(loaded: Loaded) -> AutoSpec | None:
    """What the wiring asks the compiler to choose; None where it says who hears whom."""
    return loaded.wiring.auto if isinstance(loaded.wiring, AutoWiring) else None


def machine_for(loaded: Loaded, spec: AutoSpec, machine: Machine) -> Machine:
    """The devices and microbatches that the command line asks for, or the section `auto`, or `schedule`."""
    said = replace(
        machine,
        devices=spec.devices if machine.devices is None else machine.devices,
        microbatches=spec.microbatches if machine.microbatches is None else machine.microbatches,
        profile=spec.profile if machine.profile is None else machine.profile,
    )
    whole = said.over(loaded)
    return replace(said, devices=whole.devices, microbatches=whole.microbatches)


def devices_of(machine: Machine, dtype: str) -> tuple[Device, ...]:
    """The devices that relays are chosen for: of a measured profile its fitted rates, without any the model's FLOPs."""
    if machine.devices is None and machine.profile is None:
        return (Device(),)
    asked = 1 if machine.devices is None else machine.devices
    if machine.profile == MEASURED:  # its times are those of a plan, which is not made yet
        return replace(machine, profile=None).named(dtype)
    if machine.profile is not None and isinstance(asked, int | str) and is_measured(machine.profile):
        return parse_devices(asked, read_measured(machine.profile).device, dtype, machine.memory)
    return replace(machine, devices=asked).named(dtype)


def with_regions(loaded: Loaded, spec: AutoSpec, layers: Sequence[Region], output: str, devices: int) -> Loaded:
    """The wiring with the granularity that it says, or that its request and the model's blocks suggest."""
    regions = loaded.wiring.regions
    if "granularity" in regions.model_fields_set and spec.groups is None:
        return loaded
    found = blocks(layers, output)
    if spec.groups is not None:
        count = _apart(layers, found, devices) if spec.groups == DEVICES else int(spec.groups)
        chosen = Granularity(name="groups", count=count)
    elif len(found) >= FEWEST_BLOCKS and any(len(b.layers) > 1 for b in found):
        chosen = Granularity(name="block")
    else:
        chosen = Granularity()
    regions = regions.model_copy(update={"granularity": chosen})
    return replace(loaded, wiring=loaded.wiring.model_copy(update={"regions": regions}))


def _apart(layers: Sequence[Region], found: Sequence[Group], devices: int) -> int:
    """The fewest groups of which as many as there are devices can be apart: those that share weights cannot.

    As many as there are devices (of no more than there are blocks) where no number is enough.
    """
    costs = {r.name: r.forward_flops + r.weight_flops + r.input_flops for r in layers}
    used = {r.name: r.parameters for r in layers}
    fewest = min(devices, len(found))
    for count in range(fewest, len(found) + 1):
        shared: nx.Graph[str] = nx.Graph()
        for group in groups(found, costs, count):
            shared.add_node(group.name)
            shared.add_edges_from((group.name, f"{p} ") for layer in group.layers for p in used[layer])
        if nx.number_connected_components(shared) >= fewest:
            return count
    return fewest


def base_of(loaded: Loaded, depth: int) -> Wiring:
    """The shipped wiring whose measured settings the chosen one gets where the file says nothing."""
    kind = loaded.wiring.regions.granularity.name
    name = {"block": "blocks", "groups": "groups"}.get(kind, "depth1" if depth == 1 else "depth2")
    found = load_wiring(name).wiring
    assert isinstance(found, Wiring)
    return found


def sections_of(loaded: Loaded, base: Wiring, machine: Machine, synapses: dict[str, Any]) -> dict[str, Any]:
    """The sections of the chosen wiring: what the file says, else what the shipped wiring says."""
    wiring = loaded.wiring
    said = {f.alias or k: getattr(wiring, k) for k, f in type(wiring).model_fields.items()}
    given = {k for k in said if k in wiring.model_fields_set} - {"version", "auto", "pathways", "name", "about"}
    grain = wiring.regions.granularity
    regions: dict[str, Any] = {"granularity": {grain.name: grain.count} if grain.count else grain.name}
    if wiring.regions.merge:
        regions["merge"] = plain(wiring.regions.merge)
    sections: dict[str, Any] = {"name": wiring.name if "name" in wiring.model_fields_set else "auto"}
    if wiring.about:
        sections["about"] = wiring.about
    sections["regions"] = regions if regions != {"granularity": "layer"} else {}
    for key in ("inside", "target", "memory", "frozen", "placement"):
        if key in given:
            sections[key] = plain(said[key])
        elif key in ("inside", "target") and key in base.model_fields_set:
            sections[key] = plain(getattr(base, key))
    sections["synapses"] = {**(plain(wiring.synapses) if "synapses" in given else {}), **synapses}
    schedule = plain(said["schedule"]) if "schedule" in given else {}
    devices = machine.devices if isinstance(machine.devices, int | str) else None
    if isinstance(devices, str) and devices.strip().isdecimal():
        devices = int(devices)
    chosen = {"devices": devices, "microbatches": machine.microbatches}
    sections["schedule"] = {**schedule, **{k: v for k, v in chosen.items() if v is not None}}
    for key in ("overrides", "training"):
        source = wiring if key in given else base
        sections[key] = plain(getattr(source, key))
    return sections
