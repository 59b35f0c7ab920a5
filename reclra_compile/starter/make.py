"""From a model to its starter wiring: trace it, choose where to start, plan that, and write it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reclra_compile.auto.write import plain
from reclra_compile.errors import WiringError
from reclra_compile.frontend.cut import Cut, Ground, survey
from reclra_compile.frontend.measure import measure, value_names
from reclra_compile.frontend.partition import layers
from reclra_compile.frontend.trace import trace
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.planning import designed, make_plan
from reclra_compile.spec.blocks import blocks
from reclra_compile.spec.divide import with_granularity
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.spec.load import Loaded, load_wiring
from reclra_compile.starter.choose import Start, starts


@dataclass(frozen=True, slots=True)
class Starter:
    """A plan that was made of `sections` (the keys of a wiring file), where they come from, and what did not fit.

    `blocks` are the names of the model's blocks, which regions would be with granularity block.
    """

    plan: Plan
    sections: Mapping[str, Any]
    start: Start
    blocks: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()


def starter(
    model: Any, inputs: Any, name: str, *, wiring: str | None = None, granularity: str | None = None,
    output: str | int | None = None, machine: Machine | None = None,
) -> Starter:  # fmt: skip
    """The starter wiring of a model, called `name`: from a shipped `wiring`, or one that suits the model.

    With several devices the compiler chooses who hears whom. Raises what planning raises; where no wiring fits, what is
    wrong with the one that suits best.
    """
    machine = machine or Machine()
    with_granularity(load_wiring("depth1"), granularity)  # a wrong one is no reason to try another wiring
    ground = survey(trace(model, inputs, output))
    found = layers(ground)
    measured = measure(ground.traced, found)
    output_value = value_names(ground.traced, found)[ground.output]
    named = starts(measured, output_value)
    names = tuple(b.name for b in blocks(measured, RegionGraph(measured, output_value).output))
    if wiring is not None:
        named = (Start(wiring, "as asked"),)
    refused: list[tuple[str, str]] = []
    first: WiringError | None = None
    for start in named:
        try:
            start, loaded = _loaded(start, ground, found, machine, granularity, wiring is not None)
            sections = _sections(with_granularity(loaded, granularity), name, machine)
            sections = _needed(sections, {r.phi for r in measured})
            plan, _ = make_plan(ground, found, {"version": 1, **sections}, None, "refuse", None)
        except WiringError as error:
            first = first or error
            refused.append((start.wiring, error.faults[0].message))
        else:
            return Starter(plan, sections, start, names, tuple(refused))
    make_plan(ground, found, with_granularity(load_wiring(named[0].wiring), granularity))  # its file is in the faults
    assert first is not None
    raise first


def _loaded(
    start: Start, ground: Ground, found: tuple[Cut, ...], machine: Machine, granularity: str | None, asked: bool
) -> tuple[Start, Loaded]:
    """The wiring to start from; for several devices one that the compiler chooses, unless a wiring is asked for."""
    if asked or not machine.asked or start.wiring == "backprop":
        return start, load_wiring(start.wiring)
    request = {"groups": "devices"} if start.groups else {}
    wanted = with_granularity(load_wiring({"version": 1, "auto": request}), granularity)
    made = designed(ground, found, wanted, machine)
    why = f"{made.report.reason}. {start.why}" if start.groups else made.report.reason
    return replace(start, wiring="auto", why=why), made.loaded


def _sections(loaded: Loaded, name: str, machine: Machine) -> dict[str, Any]:
    """The keys of the file, in the short forms that people write."""
    said = dict(plain(loaded.wiring))
    for key in ("version", "auto", "about"):
        said.pop(key, None)
    said["name"] = name
    grain = loaded.wiring.regions.granularity
    if "granularity" in said.get("regions", {}) or grain.name != "layer":
        said["regions"] = {
            **said.get("regions", {}), "granularity": {grain.name: grain.count} if grain.count else grain.name
        }  # fmt: skip
    if machine.asked:
        chosen = {"devices": machine.devices, "microbatches": machine.microbatches}
        said["schedule"] = {**said.get("schedule", {}), **{k: v for k, v in chosen.items() if v is not None}}
    devices = said.get("schedule", {}).get("devices")
    if isinstance(devices, str) and devices.strip().isdecimal():
        said["schedule"]["devices"] = int(devices)
    return said


def _needed(sections: dict[str, Any], phis: set[str]) -> dict[str, Any]:
    """Without exceptions for activations that the model does not have."""
    overrides = [o for o in sections.get("overrides", []) if _phi_of(o) is None or _phi_of(o) in phis]
    training = dict(sections.get("training", {}))
    training["phi"] = {k: v for k, v in training.get("phi", {}).items() if k in phis}
    training = {k: v for k, v in training.items() if v != {}}
    return {**sections, "overrides": overrides, "training": training}


def _phi_of(override: Mapping[str, Any]) -> str | None:
    chosen = override.get("regions")
    return chosen.get("phi") if isinstance(chosen, Mapping) else None
