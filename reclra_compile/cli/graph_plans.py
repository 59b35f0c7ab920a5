"""Plans that `graph` draws: of a model and a wiring, or out of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reclra_compile.cli.auto_options import KEYS, auto_wiring
from reclra_compile.cli.errors import Faults
from reclra_compile.cli.options import machine_of
from reclra_compile.cli.plan_file import read_plan
from reclra_compile.errors import Fault, Location, PlanError
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.verify import verify


def plans_of(model: str, wiring: str, given: bool, options: dict[str, Any]) -> tuple[Plan, ...]:
    """The plan to draw, and the one beside it where that is asked for; `given`: the wiring was named.

    Raises ReclraError with every fault that can be found in one go.
    """
    beside, faults, machine = options["beside"], Faults(), Machine()
    with faults.collected():
        machine = machine_of(options)
    if is_plan(model):
        with faults.collected():
            _check(model, given, options)
        with faults.collected():
            first = _read(model, machine)
        if beside:
            with faults.collected():
                if not is_plan(beside):
                    raise PlanError(Fault("P012", f"'{beside}' is no plan, as {model} is: a wiring needs the model",
                                          fix="name MODEL, or a second plan"))  # fmt: skip
                second = _read(beside, machine)
        faults.report()
        return (first, second) if beside else (first,)
    return _compiled(model, wiring, given, options, machine, faults)


def is_plan(name: str) -> bool:
    """True for a file that is neither Python nor YAML; models and wirings are those."""
    path = Path(name)
    return path.is_file() and path.suffix.lower() not in (".py", ".yaml", ".yml")


def _check(model: str, given: bool, options: dict[str, Any]) -> None:
    """Raise PlanError (P012) for what a plan has answered already."""
    asked = [f"--{k.replace('_', '-')}" for k in ("granularity", "output", "meta", "auto", *KEYS) if options.get(k)]
    asked = (["--wiring"] if given else []) + asked
    if asked:
        raise PlanError(Fault("P012", f"{', '.join(asked)} cannot be asked of a plan, which is made", Location(model),
                              "leave it out, or name the model instead"))  # fmt: skip


def _read(file: str, machine: Machine) -> Plan:
    plan = verify(read_plan(file), foreign=True)
    return plan.on(machine) if machine.asked else plan


def _compiled(
    model: str, wiring: str, given: bool, options: dict[str, Any], machine: Machine, faults: Faults
) -> tuple[Plan, ...]:
    from reclra_compile.compiler import plan_for
    from reclra_compile.frontend.load_model import load_model
    from reclra_compile.spec.load import load_wiring

    of_model = Faults()
    with of_model.collected():  # before the wirings: the file may register rules that they name
        loaded = load_model(model, meta=options["meta"])
    sources: list[Any] = []
    with faults.collected():
        sources.append(load_wiring(auto_wiring(options, wiring, given)))
    if options["beside"]:
        with faults.collected():
            name = options["beside"]
            sources.append(_read(name, machine) if is_plan(name) else load_wiring(name))
    faults.found += of_model.found
    faults.report()
    plans = []
    for source in sources:
        with loaded.blamed():
            made = source if isinstance(source, Plan) else plan_for(
                loaded.model, loaded.inputs, source, granularity=options["granularity"], output=options["output"],
                unreached=options["unreached"], machine=machine,
            )  # fmt: skip
            plans.append(made)
    return tuple(plans)
