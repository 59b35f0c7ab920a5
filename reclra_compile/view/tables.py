"""The tables of a page: regions, pathways, and in what two wirings of one model differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from reclra_compile.errors import Fault, UserError
from reclra_compile.ir import Pathway, Plan, Region
from reclra_compile.view.facts import drawable, shape_text, wave_of
from reclra_compile.view.label import amount, count, plural, xml

Row = Sequence[str]


def region_table(plan: Plan, which: int = 0, of: str = "") -> str:
    """The regions as a table; a row's button selects the region in drawing `which`."""
    waves, targets = wave_of(plan), {t.region: t for t in plan.targets}

    def row(r: Region) -> Row:
        t = targets.get(r.name)
        rule = "none" if t is None else t.rule + ("" if t.trainable else ", frozen")
        return (r.name, r.op, r.phi, ", ".join(r.inputs), shape_text(r.shape), count(r.parameter_count),
                amount(r.forward_flops, "FLOP"), rule, str(waves.get(r.name, "none")))  # fmt: skip

    heads = ("Region", "Operation", "φ", "Inputs", "Shape", "Parameters", "Forward", "Target rule", "Wave")
    rows = [row(r) for r in plan.regions]
    return table(f"Regions{of}", heads, {5, 6, 8}, rows, [f"{which}:r{i}" for i in range(len(rows))])


def pathway_table(plan: Plan, which: int = 0, of: str = "") -> str:
    """The error pathways as a table; a row's button selects the pathway in drawing `which`."""
    waves = wave_of(plan)

    def row(p: Pathway) -> Row:
        return (p.name, p.source, p.target, p.kernel, p.update, count(p.synapses),
                amount(p.flops, "FLOP"), str(waves.get(p.target, "none")))  # fmt: skip

    heads = ("Pathway", "From", "To", "Kernel", "Update", "Synapses", "Application", "Wave")
    rows = [row(p) for p in drawable(plan)]
    return table(f"Error pathways{of}", heads, {5, 6, 7}, rows, [f"{which}:p{i}" for i in range(len(rows))])


def check_beside(plan: Plan, other: Plan) -> None:
    """Raise UserError (V008) where two plans are of different models: other inputs or parameters."""
    mine, theirs = ({name for r in p.regions for name in r.parameters} for p in (plan, other))
    counts = {r.name: (r.parameters, r.parameter_count) for r in plan.regions}
    # regions can be cut in another way, but parameters stay, and those of one region have one size
    sizes = all(r.parameters != counts[r.name][0] or r.parameter_count == counts[r.name][1]
                for r in other.regions if r.name in counts)  # fmt: skip
    if plan.inputs == other.inputs and sizes and mine == theirs:
        return
    raise UserError(
        Fault("V008", f"the two plans are of different models: {_model(plan)}, and {_model(other)}",
              fix="draw two wirings of one model beside each other")
    )  # fmt: skip


def _model(plan: Plan) -> str:
    shapes = ", ".join(f"{name} {shape_text(shape)}" for name, shape, _ in plan.inputs)
    return f"{plan.model or 'a model'} of {shapes} ({plan.name}, {plural(len(plan.regions), 'region')})"


def difference_tables(plan: Plan, other: Plan) -> str:
    """Two tables: the numbers of two plans, and the regions that hear others, or in another wave."""
    a, b = plan.cost, other.cost
    measures: tuple[tuple[str, Callable[[float], str], float, float], ...] = (
        ("error pathways", _whole, len(plan.pathways), len(other.pathways)),
        ("waves", _whole, len(plan.waves), len(other.waves)),
        ("error synapses", _whole, _synapses(plan), _synapses(other)),
        ("FLOPs of a step", _flops, a.flops, b.flops),
        ("FLOPs in a row, a device per region", _flops, a.critical_path_flops, b.critical_path_flops),
        ("FLOPs of errors", _flops, a.error_flops, b.error_flops),
        ("FLOPs of synapse updates", _flops, a.synapse_update_flops, b.synapse_update_flops),
        ("× backprop's FLOPs", _ratio, a.ratio, b.ratio),
    )
    rows = [(name, said(x), said(y), _factor(x, y)) for name, said, x, y in measures]
    first, second = names_of(plan, other)
    heads = ("Measure", first, second, "second ÷ first")
    found = table("What differs", heads, {1, 2, 3}, rows)
    regions = _different_regions(plan, other)
    if regions:
        heads = ("Region", f"hears, {first}", f"hears, {second}", "waves")
        keys = [key for key, _ in regions]
        found += table("Regions that hear others", heads, set(), [row for _, row in regions], keys)
    return found


def names_of(plan: Plan, other: Plan) -> tuple[str, str]:
    """What two plans are called; told apart where they have one name."""
    return (plan.name, other.name) if plan.name != other.name else (f"{plan.name} (1)", f"{other.name} (2)")


def _different_regions(plan: Plan, other: Plan) -> list[tuple[str, Row]]:
    """The key and the cells of each region that hears others in two plans, or that one of them has alone."""
    mine, theirs = _heard(plan), _heard(other)
    here, there = wave_of(plan), wave_of(other)
    known = {r.name for r in other.regions}
    rows: list[tuple[str, Row]] = []
    for i, r in enumerate(plan.regions):
        a, b = mine.get(r.name, []), theirs.get(r.name, [])
        if a == b and here.get(r.name) == there.get(r.name):
            continue
        second = ", ".join(b) or "nothing" if r.name in known else "no such region"
        waves = f"{here.get(r.name, 'none')} → {there.get(r.name, 'none') if r.name in known else '–'}"
        rows.append((f"0:r{i}", (r.name, ", ".join(a) or "nothing", second, waves)))
    own = {r.name for r in plan.regions}
    for i, r in enumerate(other.regions):
        if r.name not in own:
            heard = ", ".join(theirs.get(r.name, [])) or "nothing"
            rows.append((f"1:r{i}", (r.name, "no such region", heard, f"– → {there.get(r.name, 'none')}")))
    return rows


def _heard(plan: Plan) -> dict[str, list[str]]:
    """The pathways into each region, as text."""
    found: dict[str, list[str]] = defaultdict(list)
    for p in drawable(plan):
        found[p.target].append(f"{p.source} by {p.kernel}")
    return {name: sorted(said) for name, said in found.items()}


def _synapses(plan: Plan) -> int:
    return sum(p.synapses for p in plan.pathways)


def _whole(v: float) -> str:
    return count(int(v))


def _flops(v: float) -> str:
    return amount(v, "FLOP")


def _ratio(v: float) -> str:
    return f"{v:.3f}"


def _factor(a: float, b: float) -> str:
    return "equal" if a == b else f"{b / a:.3g}" if a else "–"


def table(caption: str, heads: Row, numeric: set[int], rows: Sequence[Row], keys: Sequence[str] = ()) -> str:
    """A table; where there are keys, the first cell of a row is a button that selects what its key names."""
    def cell(tag: str, i: int, text: str, scope: str = "") -> str:
        style = ' class="n"' if i in numeric else ""
        return f"<{tag}{scope}{style}>{text}</{tag}>"

    head = "".join(cell("th", i, xml(h), ' scope="col"') for i, h in enumerate(heads))
    body = []
    for n, row in enumerate(rows):
        name = f'<button type="button">{xml(row[0])}</button>' if keys else xml(row[0])
        cells = cell("th", 0, name, ' scope="row"') + "".join(cell("td", i, xml(t)) for i, t in enumerate(row[1:], 1))
        key = f' data-row="{keys[n]}"' if keys else ""
        body.append(f"<tr{key}>{cells}</tr>\n")
    return (
        f'<section class="scroll" tabindex="0" aria-label="{xml(caption)}"><table><caption>{xml(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(body)}</tbody></table></section>\n"
    )
