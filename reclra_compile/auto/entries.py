"""The pathways of a chosen error graph as entries of a file, and the reason for each relay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reclra_compile.auto.choose import Choice
from reclra_compile.auto.cost import Kernels, levels
from reclra_compile.auto.report import Relay, amount
from reclra_compile.auto.write import Entry, sources
from reclra_compile.ir import OUTPUT, Region


def waves_of(choice: Choice) -> tuple[tuple[str, ...], ...]:
    """The names of the regions of each wave, the nearest to the output first."""
    wave = levels(choice.found.sources)
    names = choice.problem.names
    return tuple(
        tuple(names[i] for i in reversed(range(len(names))) if wave[i] == w) for w in range(1, max(wave, default=0) + 1)
    )


def relays_of(choice: Choice, regions: Mapping[str, Region], unit: str) -> tuple[Relay, ...]:
    """The relays, those nearest to the output first; bottlenecks that were named are among them."""
    p, found = choice.problem, choice.found
    wave, named = levels(found.sources), choice.ask.named or ()
    chosen = sorted({*found.relays(p), *named}, key=lambda i: (wave[i], -i))
    relays = []
    for i in chosen:
        heard_by = tuple(p.names[k] for k, s in enumerate(found.sources) if s == i)
        hears = OUTPUT if found.sources[i] == p.output else p.names[found.sources[i]]
        reason = _reason(choice, i, regions, unit, i in named)
        relays.append(Relay(p.names[i], regions[p.names[i]].size, hears, heard_by, wave[i], reason))
    return tuple(relays)


def _reason(choice: Choice, i: int, regions: Mapping[str, Region], unit: str, named: bool) -> str:
    p, found = choice.problem, choice.found
    sizes = sorted(regions[n].size for n in p.names)
    neurons = regions[p.names[i]].size
    place = sizes.index(neurons) + 1
    width = f"{neurons} neurons"
    if sizes[0] < sizes[-1]:
        order = "the fewest" if place == 1 else f"{sum(s < neurons for s in sizes)} of {len(sizes)} regions have fewer"
        width += f" ({order})"
    heard = tuple(p.names[k] for k, s in enumerate(found.sources) if s == i)
    own = amount(_us(choice, i, found.sources[i]), unit)
    if not heard:
        return f"named as a bottleneck; {width}; its error takes {own}; {_unheard(choice, i)}"
    longest = max((k for k, s in enumerate(found.sources) if s == i), key=lambda k: int(p.job[k, i]))
    theirs = amount(_us(choice, longest, i), unit)
    why = "named as a bottleneck; " if named else ""
    return f"{why}{width}; its error takes {own}; heard by {len(heard)}, whose longest takes {theirs}"


def _unheard(choice: Choice, i: int) -> str:
    """Why no region hears a bottleneck that was named."""
    p, named = choice.problem, choice.ask.named or ()
    upstream = [k for k in range(p.output) if i in p.below(k)]
    if not upstream:
        return "no region hears it: none lies upstream"
    if all(k in named for k in upstream):
        return "no region hears it: all that lie upstream are bottlenecks themselves"
    return "no region hears it: another relay is cheaper"


def _us(choice: Choice, target: int, source: int) -> float:
    return int(choice.problem.job[target, source]) * choice.problem.tick_us


def entries_of(
    choice: Choice, kernels: Kernels, numbers: Mapping[str, int], relays: Sequence[Relay], update: Mapping[str, object]
) -> list[Entry]:
    """What hears the output, then what hears each relay; `update` is what entries from the output say besides."""
    p, found = choice.problem, choice.found
    if not p.names:
        return [Entry(OUTPUT, "all", update, ("The model has no region besides that of the output.",))]
    entries: list[Entry] = []
    about = {r.name: r for r in relays}
    wave = levels(found.sources)
    order = [p.output, *sorted(found.relays(p), key=lambda i: (wave[i], -i))]
    for s in order:
        targets = [p.names[i] for i in reversed(range(len(p.names))) if found.sources[i] == s]
        exact = [n for n in targets if n in kernels.exact]
        if exact:
            said = {"kernel": "adjoint"}
            reasons = (f"{n}: {about[n].reason}" for n in exact if n in about)
            comment = ("Wave 1, exactly, through the output region, which reads it:", *reasons)
            entries.append(Entry("consumers", sources(exact, numbers), said, comment))
        targets = [n for n in targets if n not in exact]
        first = [n for n in targets if n in about]
        groups = [first, [n for n in targets if n not in about]] if s == p.output else [targets]
        for group in filter(None, groups):
            for rank, names in _by_rank(choice, kernels, s, group).items():
                source: object = OUTPUT if s == p.output else sources([p.names[s]], numbers)
                kernel = {"kernel": {"low_rank": rank}} if rank else {}
                options = {**(update if s == p.output else {}), **kernel}
                entries.append(Entry(source, sources(names, numbers), options, _comment(choice, s, names, about)))
    return entries


def _by_rank(choice: Choice, kernels: Kernels, source: int, names: Sequence[str]) -> dict[int, list[str]]:
    """The targets by the rank that the file has to name for them; 0 where `auto` chooses the same kernel."""
    if not choice.rung.rank:
        return {0: list(names)}
    regions = kernels.graph.regions
    b = regions[kernels.graph.output if source == choice.problem.output else choice.problem.names[source]]
    found: dict[int, list[str]] = {}
    for name in names:
        made = kernels.pathway(b, regions[name], choice.rung)
        found.setdefault(made.rank if made.kernel == "low_rank" else 0, []).append(name)
    return found


def _comment(choice: Choice, source: int, names: Sequence[str], about: Mapping[str, Relay]) -> tuple[str, ...]:
    if source != choice.problem.output:
        relay = about[choice.problem.names[source]]
        inner = (f"{n} is a relay itself: {about[n].reason}" for n in names if n in about)
        return f"Wave {relay.wave + 1}, what hears {relay.name}:", *inner
    if names[0] in about:
        return "Wave 1, the relays:", *(f"{n}: {about[n].reason}" for n in names)
    if about:
        return (f"Wave 1, too: no relay lies downstream of {'this one' if len(names) == 1 else 'these'}.",)
    return ("Wave 1: all hear the output; no error waits for another region's.",)
