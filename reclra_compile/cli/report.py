"""What people see on the terminal: tables of regions, pathways and waves, notes, and errors."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from reclra_compile.errors import ReclraError
from reclra_compile.ir import Pathway, Plan

WAVE_STYLES = ("bold magenta", "cyan", "green", "yellow", "blue", "red")
MANY = 24


def console(stderr: bool = False) -> Console:
    """A console that is 100 columns wide where there is no terminal, so that files read well."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=max(100, made.width))


def human(n: float) -> str:
    """A count with a decimal prefix: 1.2k, 3.4M, 5.6G."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(n) < 1000 or unit == "P":
            return f"{n:.0f}{unit}" if unit == "" else f"{n:.3g}{unit}"
        n /= 1000
    return f"{n:.3g}P"


def note(text: str) -> None:
    """A line of information on standard output; paths stay on one line."""
    console().print(escape(text), soft_wrap=True)


def print_errors(error: ReclraError) -> None:
    """Every fault on standard error, the code in colour."""
    out = console(stderr=True)
    for fault in error.faults:
        text = Text()
        text.append(f"error[{fault.code}]", style="bold red")
        text.append(f" {fault.where}: " if fault.where else ": ", style="bold")
        text.append(fault.message)
        if fault.fix:
            text.append("\n  fix: ", style="green")
            text.append(fault.fix)
        out.print(text, soft_wrap=True)
    if len(error.faults) > 1:
        out.print(f"{len(error.faults)} faults", soft_wrap=True)


def print_plan(plan: Plan) -> None:
    """The compile report."""
    out = console()
    out.print(f"[bold]{escape(plan.model)}[/] × [bold]{escape(plan.name)}[/]   batch {plan.batch}   {plan.fingerprint}")
    out.print(_regions(plan))
    out.print(_pathways(plan))
    for k, names in enumerate(plan.waves):
        shown = names if len(names) <= MANY else (*names[:MANY], f"… {len(names) - MANY} more")
        out.print(Text(f"wave {k}  ", style=_style(k)) + Text("  ".join(shown)))
    _print_cost(out, plan)
    for warning in plan.warnings:
        out.print(Text("warning: ", style="bold yellow") + Text(warning))


def _style(wave: int) -> str:
    return WAVE_STYLES[wave % len(WAVE_STYLES)]


def _regions(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="regions", title_justify="left", title_style="bold")
    for column, right in (("#", True), ("name", False), ("op", False), ("φ", False), ("shape", False),
                          ("parameters", True), ("FLOPs", True), ("target", False), ("wave", True)):  # fmt: skip
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    targets = {t.region: t for t in plan.targets}
    wave = {name: k for k, names in enumerate(plan.waves) for name in names}
    for i, r in enumerate(plan.regions, 1):
        t = targets.get(r.name)
        rule = "" if t is None else t.rule if t.rule == "gradient" else f"{t.rule} β={t.beta:g}"
        if t is not None and t.phi != "same":
            rule += f" φ={t.phi}"
        k = wave.get(r.name)
        shape = "×".join(["N", *map(str, r.shape)])
        table.add_row(str(i), escape(r.name), r.op, r.phi, shape, human(r.parameter_count), human(r.forward_flops),
                      rule, "" if k is None else Text(str(k), style=_style(k)))  # fmt: skip
    table.add_section()
    total = sum(r.parameter_count for r in plan.regions)
    table.add_row("", "total", "", "", "", human(total), human(sum(r.forward_flops for r in plan.regions)), "", "")
    return table


def _pathways(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="error pathways", title_justify="left", title_style="bold")
    for column, right in (("from", False), ("to", False), ("kernel", False), ("synapses", True),
                          ("init", False), ("update", False), ("wave", True)):  # fmt: skip
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    wave = {name: k for k, names in enumerate(plan.waves) for name in names}
    for p in plan.pathways:
        init = "" if p.init in ("none", "auto") else f"{p.init} {p.scale:g}"
        k = wave[p.target]
        table.add_row(escape(p.source), escape(p.target), kernel(p), human(p.synapses) if p.synapses else "tied",
                      init, p.update, Text(str(k), style=_style(k)))  # fmt: skip
    return table


def kernel(p: Pathway) -> str:
    """Kernel name with its rank."""
    return f"{p.kernel} {p.rank}" if p.rank else p.kernel


def _print_cost(out: Console, plan: Plan) -> None:
    c = plan.cost
    out.print(
        f"\ncost per step  {human(c.flops)} FLOPs = [bold]{c.ratio:.3f}[/] × backprop ({human(c.backprop_flops)}): "
        f"forward {human(c.forward_flops)}, weights {human(c.weight_flops)}, errors {human(c.error_flops)}, "
        f"synapse updates {human(c.synapse_update_flops)}"
    )
    if c.backprop_critical_path_flops:
        shorter = c.critical_path_flops / c.backprop_critical_path_flops
        out.print(
            f"critical path  {human(c.critical_path_flops)} FLOPs = {shorter:.3f} × backprop's, with a device per region"
        )
    out.print(f"memory         {human(c.parameter_bytes)}B parameters, {human(c.synapse_bytes)}B error synapses")
