"""What people see on the terminal: tables of regions, pathways, waves and cost, notes, and errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from reclra_compile.cli.tables import NAME, NUMBER, TEXT, Cell, Row, table
from reclra_compile.errors import Location, Notice, ReclraError
from reclra_compile.ir import Pathway, Plan, Target

WAVE_STYLES = ("bold magenta", "cyan", "green", "yellow", "blue", "red")
MANY = 24
NARROW = 100
HINTED = 3  #: codes that the line below errors names


def console(stderr: bool = False) -> Console:
    """A console that is 100 columns wide where there is no terminal, so that files read well."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=max(100, made.width))


def human(n: float) -> str:
    """A count in three digits with a decimal prefix: 120, 1.20k, 3.44M, 5.60G."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(n) < 999.5:
            return f"{n:.0f}" if not unit else f"{n:#.3g}".rstrip(".") + unit
        n /= 1000
    return f"{n:.0f}P" if abs(n) >= 99.95 else f"{n:#.3g}P"


def note(text: str) -> None:
    """A line of information on standard output; paths stay on one line."""
    console().print(escape(text), soft_wrap=True)


def print_warning(warning: Notice, out: Console | None = None) -> None:
    """A warning with its code in colour, on standard output where no console is given."""
    text = Text.assemble((f"{warning.label}: ", "bold yellow"), warning.message)
    (out or console()).print(text, soft_wrap=True)


def print_errors(error: ReclraError) -> None:
    """Every fault on standard error, the code in colour."""
    out = console(stderr=True)
    for fault in error.faults:
        text = Text()
        text.append(f"error[{fault.code}]", style="bold red")
        text.append(f" {_place(fault.where)}: " if fault.where else ": ", style="bold")
        text.append(fault.message)
        if fault.fix:
            text.append("\n  fix: ", style="green")
            text.append(fault.fix)
        out.print(text, soft_wrap=True)
    if len(error.faults) > 1:
        out.print(f"{len(error.faults)} faults", soft_wrap=True)
    hint(out, [f.code for f in error.faults])


def hint(out: Console, codes: Sequence[str]) -> None:
    """On a terminal, one line that says how to read more about `codes`."""
    asked = " ".join(list(dict.fromkeys(c for c in codes if c))[:HINTED])
    if asked and out.is_terminal:
        out.print(Text(f"reclra-compile explain {asked} says more", "dim"), soft_wrap=True)


def _place(where: Location) -> str:
    """A place, relative to the current folder where it lies in it."""
    inside = where.file.startswith(os.path.join(os.getcwd(), ""))
    return str(Location(os.path.relpath(where.file), where.line, where.column) if inside else where)


def print_report(draw: Callable[[Console], None]) -> None:
    """What `draw` prints, without the blanks that tables end in: they would wrap on a narrow screen."""
    out = console()
    with out.capture() as report:
        draw(out)
    click.echo("\n".join(line.rstrip() for line in report.get().splitlines()))


def room_of(out: Console) -> int | None:
    """The width that tables have to fit; None in a file, which can be scrolled sideways."""
    return out.width if out.is_terminal else None


def widen(out: Console, *tables: Table) -> None:
    """In a file, make room for the tables, so that names stay whole there."""
    if not out.is_terminal:
        free = out.options.update(max_width=10_000)
        out.width = max(out.width, *(out.measure(t, options=free).maximum for t in tables))


def print_plan(plan: Plan) -> None:
    """The compile report."""
    print_report(lambda out: _print_plan(out, plan))


def _print_plan(out: Console, plan: Plan) -> None:
    from reclra_compile.cli.device_report import device_table, on_devices, step_line

    out.print(Text.assemble((plan.model, "bold"), " × ", (plan.name, "bold"), (f"   {plan.fingerprint}", "dim")))
    room = room_of(out)
    regions, pathways = _regions(plan, room), _pathways(plan, room)
    nested = any(r.within for r in plan.regions)
    widen(out, regions, pathways)
    for made in (regions, *([_tree(plan)] if nested else []), pathways, _waves(plan), _cost(plan)):
        out.print()
        out.print(made)
    c = plan.cost
    for reason in _reasons(plan):
        out.print(reason, soft_wrap=True, markup=False)
    if on_devices(plan):
        out.print()
        out.print(device_table(plan, room))
        out.print(step_line(plan))
    out.print(f"memory: {_bytes(c.parameter_bytes)} of parameters, {_bytes(c.synapse_bytes)} of error synapses")
    sent = f", {_bytes(c.sent_bytes)} sent between devices" if c.sent_bytes else ""
    out.print(f"traffic of a step: {_bytes(c.traffic_bytes)} read and written{sent}")
    if plan.warnings:
        out.print()
    for warning in plan.warnings:
        print_warning(warning, out)
    hint(out, [w.code for w in plan.warnings])


def _bytes(n: int) -> str:
    text = human(n)
    return f"{text[:-1]} {text[-1]}B" if text[-1].isalpha() else f"{text} B"


def _wave_of(plan: Plan) -> dict[str, int]:
    return {name: k for k, names in enumerate(plan.waves) for name in names}


def _wave(k: int | None) -> Text:
    return Text("" if k is None else str(k), style="" if k is None else WAVE_STYLES[k % len(WAVE_STYLES)])


def _regions(plan: Plan, room: int | None) -> Table:
    columns = (("name", NAME), ("op", TEXT), ("φ", TEXT), ("output", TEXT), ("parameters", NUMBER), ("FLOPs", NUMBER),
               ("target", TEXT), ("wave", NUMBER))  # fmt: skip
    targets = {t.region: t for t in plan.targets}
    wave = _wave_of(plan)
    rows = [
        (r.name, r.op, "" if r.phi == "identity" else r.phi, "×".join(map(str, r.shape)) or "1",
         human(r.parameter_count), human(r.forward_flops), _rule(targets.get(r.name)), _wave(wave.get(r.name)))
        for r in plan.regions
    ]  # fmt: skip
    total = human(sum(r.parameter_count for r in plan.regions))
    flops = human(sum(r.forward_flops for r in plan.regions))
    title = f"{count(len(plan.regions), 'region')}, for a batch of {plan.batch}"
    return table(title, columns, rows, ("all", "", "", "", total, flops, "", ""), room)


def count(n: int, what: str) -> str:
    """A number of things, in the singular where it is one."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _rule(t: Target | None) -> str:
    if t is None:
        return ""
    rule = t.rule if t.rule == "gradient" else f"{t.rule} β={t.beta:g}"
    return rule + (f" φ={t.phi}" if t.phi != "same" else "")


def _tree(plan: Plan) -> Tree:
    """Blocks inside blocks: each region under the blocks around it, with what it hears."""
    hears: dict[str, list[str]] = {}
    for p in plan.pathways:
        hears.setdefault(p.target, []).append(p.source)
    root = Tree(Text(plan.model, "bold"), guide_style="dim")
    branches: dict[tuple[str, ...], Tree] = {(): root}
    for r in plan.regions:
        for depth in range(len(r.within)):
            around, name = r.within[:depth], r.within[depth]
            here = (*around, name)
            if here not in branches:
                branches[here] = branches[around].add(Text(name, "bold cyan"))
        heard = f"  ← {', '.join(hears[r.name])}" if r.name in hears else ""
        branches[r.within].add(Text.assemble(r.name, (heard, "dim")))
    return root


def _pathways(plan: Plan, room: int | None) -> Table:
    columns = [("from", NAME), ("to", NAME), ("kernel", TEXT), ("synapses", NUMBER), ("init", TEXT), ("update", TEXT),
               ("wave", NUMBER)]  # fmt: skip
    wave = _wave_of(plan)
    rows: list[list[Cell]] = [
        [p.source, p.target, kernel(p), human(p.synapses) if p.synapses else "tied",
         "" if p.init in ("none", "auto") else f"{p.init} {p.scale:g}", p.update, _wave(wave[p.target])]
        for p in plan.pathways
    ]  # fmt: skip
    total = ["all", "", "", human(sum(p.synapses for p in plan.pathways)), "", "", ""]
    title = count(len(plan.pathways), "error pathway")
    if room is not None and room < NARROW:  # no place for how synapses start; the plan and --json say it
        del columns[4], total[4]
        for row in rows:
            del row[4]
    return table(title, columns, rows, total, room)


def kernel(p: Pathway) -> str:
    """Kernel name with its rank, the cells it reads or the size of its filters."""
    sizes = "×".join(map(str, p.grid if p.kernel in ("spatial", "channel") else p.window))
    return " ".join(filter(None, (p.kernel, str(p.rank or ""), sizes)))


def _reasons(plan: Plan) -> list[str]:
    """Why `kernel: auto` chose what it chose, one line for pathways that share a reason."""
    chosen: dict[tuple[str, str], list[str]] = {}
    for p in plan.pathways:
        if p.reason:
            chosen.setdefault((p.kernel, p.reason), []).append(p.target)
    lines = []
    for (name, why), onto in chosen.items():
        more = f" and {len(onto) - 3} more" if len(onto) > 3 else ""
        lines.append(f"kernel auto is {name} onto {', '.join(onto[:3])}{more}: {why}")
    return lines


def _waves(plan: Plan) -> Table:
    shown = [n if len(n) <= MANY else (*n[:MANY], f"… {len(n) - MANY} more") for n in plan.waves]
    rows = [(_wave(k), ", ".join(names)) for k, names in enumerate(shown)]
    columns = (("wave", NUMBER), ("regions that get their error at once", TEXT))
    made = table(count(len(plan.waves), "wave"), columns, rows, None, None)
    made.columns[-1].no_wrap = False
    return made


def _cost(plan: Plan) -> Table:
    c = plan.cost
    parts = (("forward", c.forward_flops), ("weight gradients", c.weight_flops), ("error pathways", c.error_flops),
             ("synapse updates", c.synapse_update_flops))  # fmt: skip
    rows: list[Row] = [(what, human(flops), "", "") for what, flops in parts]
    rows.append(("one device", human(c.flops), human(c.backprop_flops), Text(f"{c.ratio:.3f}", "bold")))
    if c.backprop_critical_path_flops:
        ratio = c.critical_path_flops / c.backprop_critical_path_flops
        rows.append(("a device per region", human(c.critical_path_flops), human(c.backprop_critical_path_flops),
                     Text(f"{ratio:.3f}", "bold")))  # fmt: skip
    columns = (("", TEXT), (plan.name, NUMBER), ("backprop", NUMBER), ("ratio", NUMBER))
    made = table("predicted FLOPs of one step", columns, rows, None, None)
    made.rows[len(parts) - 1].end_section = True
    return made
