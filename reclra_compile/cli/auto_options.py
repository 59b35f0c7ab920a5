"""The options that leave the error pathways to the compiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from reclra_compile.spec.load import Loaded

F = TypeVar("F", bound=Callable[..., Any])
KEYS = ("depth", "bottlenecks", "synapse_memory", "groups")


def auto_options(command: F) -> F:
    """--auto and what it is bound to; `auto_wiring` reads them."""
    for option in (
        click.option("--groups", metavar="K|devices",
                     help="auto: K decoupled groups of blocks, or as many as there are devices; exact inside"),
        click.option("--synapse-memory", metavar="SIZE", help="auto: bytes that error synapses may take, such as 2GiB"),
        click.option("--bottlenecks", metavar="N|NAMES",
                     help="auto: how many relays, or which: 3, or layer2,layer5,layer8"),
        click.option("--depth", type=int, metavar="K",
                     help="auto: most waves of errors below the output; default: 1 and 2 are compared"),
        click.option("--auto", is_flag=True, help="let the compiler choose who hears whom, for --devices"),
    ):  # fmt: skip
        command = option(command)
    return command


def auto_wiring(options: dict[str, Any], wiring: str, chosen: bool) -> str | Loaded:
    """The wiring to compile; the options of `auto_options` are taken out of `options`.

    `wiring` is the option --wiring, `chosen` true where it was given. Options replace what the section `auto` of that
    file says. Raises WiringError for what cannot be asked for, UsageError where the file has pathways.
    """
    given = {k: v for k in KEYS if (v := options.pop(k)) is not None}
    if not options.pop("auto") and not given:
        return wiring

    from reclra_compile.auto.write import plain
    from reclra_compile.errors import Fault, Location, WiringError
    from reclra_compile.spec.load import load_wiring
    from reclra_compile.spec.schema import AutoWiring

    for key in ("bottlenecks", "groups"):
        if given.get(key, "").strip().lstrip("-").isdigit():
            given[key] = int(given[key])
    if isinstance(given.get("bottlenecks"), str):
        given["bottlenecks"] = [n.strip() for n in given["bottlenecks"].split(",") if n.strip()]
    loaded = load_wiring(wiring) if chosen else None
    if loaded is not None and not isinstance(loaded.wiring, AutoWiring):
        raise click.UsageError(
            f"--auto chooses the pathways, but wiring {wiring!r} has them: leave one of the two out"
        )
    before = plain(loaded.wiring.auto) if loaded is not None and isinstance(loaded.wiring, AutoWiring) else {}
    try:
        made = load_wiring({"version": 1, "auto": {**before, **given}})
    except WiringError as error:
        named = (Fault(f.code, _optioned(f.message), None, _optioned(f.fix)) for f in error.faults)
        raise WiringError(named) from None
    assert isinstance(made.wiring, AutoWiring)
    said = {(key,) for key in given}
    if loaded is not None:
        made = replace(loaded, wiring=loaded.wiring.model_copy(update={"auto": made.wiring.auto}))
    # a fault of what an option says is there, and not in the file
    marks = {path: where for path, where in made.marks.items() if path[:1] != ("auto",) or path[1:2] not in said}
    marks |= {("auto", *key): Location(f"--{key[0].replace('_', '-')}") for key in said}
    return replace(made, marks=marks)


def _optioned(text: str) -> str:
    """Words about keys of the section `auto` as words about options."""
    for key in KEYS:
        text = text.replace(f"'{key}'", f"--{key.replace('_', '-')}").replace(f"'{key}: ", f"'--{key} ")
    return text
