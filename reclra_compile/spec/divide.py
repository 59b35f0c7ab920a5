"""Divide a model's layer regions as a wiring says: into layers, blocks, groups, and blocks inside blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from reclra_compile.errors import Fault, WiringError
from reclra_compile.ir import Region
from reclra_compile.spec.blocks import Group, blocks, cycle, groups, merge
from reclra_compile.spec.collect import Faults
from reclra_compile.spec.load import Loaded
from reclra_compile.spec.parts import Granularity
from reclra_compile.spec.schema import InnerWiring, NamedWiring, PathwaySpec

CODES = {
    "W036": "regions that cannot be merged, because what leaves them comes back into them",
    "W038": "more groups than the model has blocks",
    "W040": "a granularity that is not layer, block or groups=K",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A region to be, made of layer regions; or, with `parts`, a block divided by the wiring `loaded` inside it.

    `exit` names the layer region that makes the part's main output.
    """

    name: str
    layers: tuple[str, ...]
    exit: str
    parts: tuple[Part, ...] = ()
    loaded: Loaded | None = None

    def regions(self, within: tuple[str, ...] = ()) -> list[tuple[Part, tuple[str, ...]]]:
        """The undivided parts in it, each with the names of the parts around it."""
        if not self.parts:
            return [(self, within)]
        return [found for part in self.parts for found in part.regions((*within, self.name))]

    def last(self) -> str:
        """Name of the region that makes the part's main output."""
        return next((p.last() for p in self.parts if self.exit in p.layers), self.name)


def with_granularity(loaded: Loaded, text: str | None) -> Loaded:
    """`loaded` with the granularity of `text`: layer, block or groups=K; raises WiringError (W040)."""
    if text is None:
        return loaded
    name, _, count = text.partition("=")
    known = (name in ("layer", "block") and not count) or (name == "groups" and count.isdigit() and int(count) > 0)
    if not known:
        raise WiringError(Fault("W040", f"unknown granularity '{text[:40]}'", fix="use layer, block or groups=K"))
    chosen = Granularity(name=name, count=int(count or 0))
    regions = loaded.wiring.regions.model_copy(update={"granularity": chosen})
    return replace(loaded, wiring=loaded.wiring.model_copy(update={"regions": regions}))


def with_unreached(loaded: Loaded, mode: str) -> Loaded:
    """`loaded` with what becomes of regions that no error reaches: refuse, freeze, or backprop (exactly)."""
    if mode != "backprop":
        return replace(loaded, unreached=mode)
    exact = PathwaySpec.model_validate({"from": "consumers", "to": "rest", "kernel": "adjoint"})
    wiring = loaded.wiring.model_copy(update={"pathways": [*loaded.wiring.pathways, exact]})
    return replace(loaded, wiring=wiring, unreached=mode)


def divide(layers: Sequence[Region], output: str, loaded: Loaded) -> tuple[Part, ...]:
    """The parts of `layers` (in model order) that `loaded` asks for; `output` names the layer that ends the model.

    Raises WiringError (W020, W021, W036, W038) with every fault.
    """
    faults = Faults(loaded)
    units = _units(layers, output, loaded, faults)
    units = _merged(layers, units, loaded, faults)
    if found := faults.sorted():
        raise WiringError(found)
    ends = {v for r in layers if r.name == output for v in r.outputs}
    return tuple(_part(unit, layers, ends, output, loaded) for unit in units)


def _units(layers: Sequence[Region], output: str, loaded: Loaded, faults: Faults) -> tuple[Group, ...]:
    granularity = loaded.wiring.regions.granularity
    if granularity.name == "layer":
        return tuple(Group(r.name, (r.name,)) for r in layers)
    found = blocks(layers, output)
    if granularity.name == "block":
        return found
    if granularity.count > len(found):
        faults.add("W038", f"{granularity.count} groups of {len(found)} blocks: {_listed([u.name for u in found])}",
                   "regions", "granularity", fix=f"ask for {len(found)} groups or fewer")  # fmt: skip
        return found
    costs = {r.name: r.forward_flops + r.weight_flops + r.input_flops for r in layers}
    return groups(found, costs, granularity.count)


def _merged(
    layers: Sequence[Region], units: tuple[Group, ...], loaded: Loaded, faults: Faults
) -> tuple[Group, ...]:
    for k, globs in enumerate(loaded.wiring.regions.merge):
        at = ("regions", "merge", k)
        chosen = [i for i, u in enumerate(units) if all(any(_matches(layer, g) for g in globs) for layer in u.layers)]
        if not chosen:
            faults.add("W021", f"no region lies in {_listed(list(globs))}", *at,
                       fix=f"the regions are {_listed([u.name for u in units])}")  # fmt: skip
            continue
        name = globs[0].rstrip("*").rstrip(".") if len(globs) == 1 else ""
        others = {u.name for i, u in enumerate(units) if i not in chosen}
        if not name or name in others or any(c in name for c in "*?[]"):
            name = f"{units[chosen[0]].name}-{units[chosen[-1]].name}" if len(chosen) > 1 else units[chosen[0]].name
        together = merge(units, chosen, name)
        ring = cycle(layers, together)
        if ring:
            faults.add("W036", f"'{name}' cannot be one region: its values come back into it by way of "
                       f"{_listed([together[i].name for i in ring if together[i].name != name])}", *at,
                       fix="merge what lies between them too")  # fmt: skip
            continue
        units = together
    return units


def _matches(layer: str, glob: str) -> bool:
    return fnmatchcase(layer, glob) or layer.startswith(f"{glob}.")


def _part(unit: Group, layers: Sequence[Region], ends: set[str], output: str, loaded: Loaded) -> Part:
    own = [r for r in layers if r.name in unit.layers]
    read = {v for r in layers if r.name not in unit.layers for v in r.inputs} | ends
    leaving = [r.name for r in own if read & set(r.outputs)] or [own[-1].name]
    end = output if output in unit.layers else leaving[-1]
    inside, at = _inside(unit.name, loaded.wiring)
    if inside is None or len(own) == 1 or (isinstance(inside, NamedWiring) and inside.reference == "backprop"):
        return Part(unit.name, unit.layers, end)
    inner = loaded.inner(inside, *at)
    parts = divide(own, end, inner)
    if len(parts) == 1:
        return Part(unit.name, unit.layers, end)
    return Part(unit.name, unit.layers, end, parts, inner)


def _inside(name: str, wiring: InnerWiring) -> tuple[InnerWiring | None, tuple[str | int, ...]]:
    """The wiring inside the region called `name`, and where it stands: of the last override that has one."""
    found: tuple[InnerWiring | None, tuple[str | int, ...]] = (wiring.inside, ("inside",))
    for k, override in enumerate(wiring.overrides):
        names = override.regions.names or ()
        if override.inside is not None and any(n == "all" or _matches(name, n) for n in names):
            found = (override.inside, ("overrides", k, "inside"))
    return found


def _listed(names: Sequence[str]) -> str:
    shown = names if len(names) <= 8 else [*names[:5], "…", *names[-2:]]
    return ", ".join(shown)
