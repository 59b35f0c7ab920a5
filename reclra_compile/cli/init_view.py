"""How `init` comes to a file, and what it says of it: where the wiring starts, and what to run next."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from reclra_compile.cli.report import console, hint, note, print_warning
from reclra_compile.errors import Fault, Location, UserError
from reclra_compile.files import write_text
from reclra_compile.frontend.load_model import Loaded, load_model
from reclra_compile.machine import Machine
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.starter.make import Starter, starter
from reclra_compile.starter.write import text_of

#: shapes of a sample → options of `train` for a data set that fits
DATA: dict[tuple[int, ...], str] = {
    (64,): "", (8, 8): "", (1, 8, 8): "",
    **dict.fromkeys([(784,), (28, 28), (1, 28, 28)], "--data mnist --data-dir FOLDER"),
    **dict.fromkeys([(3072,), (3, 32, 32)], "--data cifar10 --data-dir FOLDER"),
}  # fmt: skip


def run_init(model: str, options: dict[str, Any]) -> str | None:
    """Write the starter wiring; raises UserError (I001, F001), ModelError, WiringError, PlacementError."""
    out = options["out"] or f"{_stem(model)}.yaml"
    if os.path.lexists(out) and out != "-" and not options["force"]:
        raise UserError(
            Fault("I001", "this file is there already", Location(out), "name another with --out, or write over it "
                  "with --force")
        )  # fmt: skip
    loaded = load_model(model, meta=options["meta"])
    devices = options["devices"]
    devices = int(devices) if str(devices).isdecimal() else devices
    machine = Machine(devices=devices, microbatches=options["microbatches"])
    name = re.sub(r"[^\w.-]+", "_", Path(out).stem if out != "-" else _stem(model)).strip("_.-") or "mine"
    with loaded.blamed():
        made = starter(loaded.model, loaded.inputs, name, wiring=options["wiring"],
                       granularity=options["granularity"], output=options["output"], machine=machine)  # fmt: skip
    commands = next_commands(model, "my.yaml" if out == "-" else out, loaded, made, options)
    text = text_of(made, _heading(model, made), commands)
    if out != "-":
        write_text(out, text)
    if options["as_json"]:
        return json.dumps(_data(out, made, commands), indent=2, ensure_ascii=False)
    if out == "-":
        click.echo(text, nl=False)
        return None
    _say(out, made, commands)
    return None


def _stem(model: str) -> str:
    """The name of MODEL without folder, suffix and attribute."""
    file = model.rpartition(":")[0] if ":" in os.path.basename(model) else model
    return Path(file).stem if file.endswith(".py") else file.rpartition(".")[2] or "model"


def _heading(model: str, made: Starter) -> list[str]:
    start = made.start
    what = "its pathways are chosen by the compiler" if start.wiring == "auto" else f"it starts as {start.wiring}"
    lines = [f"A wiring for {made.plan.model} ({model}), written by `reclra-compile init` to be edited: {what}."]
    if start.why != "as asked":
        lines.append(f"Why: {start.why.rstrip('.')} (docs/learning.md).")
    lines += [f"{name} does not fit this model: {message}." for name, message in made.refused]
    return lines


def next_commands(model: str, out: str, loaded: Loaded, made: Starter, options: dict[str, Any]) -> list[str]:
    """What the reader may run next, as command lines."""
    name, wiring = shlex.quote(model), shlex.quote(out)
    common = f" --output {shlex.quote(str(options['output']))}" if options["output"] is not None else ""
    meta = " --meta" if options["meta"] else ""
    train = " --unreached freeze" if made.plan.idle else ""
    shape = made.plan.inputs[0][1]
    if loaded.extra("data") is None and len(made.plan.inputs) == 1:
        data = DATA.get(shape, "--data imagefolder --data-dir FOLDER" if len(shape) == 3 and shape[0] == 3 else "")
        train += f" {data}" if data else ""
    return [
        f"reclra-compile check {wiring} {name}{common}{meta}",
        f"reclra-compile {name} -w {wiring}{common}{meta} --graph {shlex.quote(f'{Path(out).stem}.html')}",
        f"reclra-compile train {name} -w {wiring}{common}{train} --compare backprop",
        f"reclra-compile diagnose {name} -w {wiring}{common}{train}",
    ]


def _say(out: str, made: Starter, commands: list[str]) -> None:
    graph = RegionGraph(made.plan.regions, made.plan.output)
    note(f"wiring written to {out}")
    start = "chosen by the compiler" if made.start.wiring == "auto" else f"starts as {made.start.wiring}"
    what = "region" if any(r.layers for r in made.plan.regions) else "layer"
    many = f"{_many(len(graph.layers), what)}, {_many(len(made.plan.pathways), 'pathway')}"
    note(f"{start}: {many}, {_many(len(made.plan.waves) - 1, 'wave')} below the output")
    if made.start.why != "as asked":
        note(f"why: {made.start.why}")
    for name, message in made.refused:
        note(f"{name} does not fit: {message}")
    for warning in made.plan.warnings:
        print_warning(warning)
    hint(console(), [w.code for w in made.plan.warnings])
    note("next:")
    for command in commands:
        console().print(Text(f"  {command}", "cyan"), soft_wrap=True)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _data(out: str, made: Starter, commands: list[str]) -> dict[str, Any]:
    """{"version", "file", "wiring", "why", "refused", "regions", "commands", "warnings", "warning_codes"}."""
    graph = RegionGraph(made.plan.regions, made.plan.output)
    numbers = {name: k for k, name in enumerate(graph.layers, 1)}
    return {
        "version": 1,
        "file": None if out == "-" else out,
        "wiring": made.start.wiring,
        "why": made.start.why,
        "refused": [{"wiring": name, "message": message} for name, message in made.refused],
        "sections": {"version": 1, **made.sections},
        "regions": [
            {"name": r.name, "layer": numbers.get(r.name), "op": r.op, "phi": r.phi, "shape": r.shape,
             "parameters": r.parameter_count, "layers": r.layers}
            for r in made.plan.regions
        ],
        "commands": commands,
        "warnings": [w.message for w in made.plan.warnings],
        "warning_codes": [w.code for w in made.plan.warnings],
    }  # fmt: skip
