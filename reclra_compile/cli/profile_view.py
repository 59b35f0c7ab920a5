"""Times of a model's tasks as people and programs see them, and how the command comes to them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from reclra_compile.cli.bar import DoneBar
from reclra_compile.cli.errors import Faults
from reclra_compile.cli.report import note, print_report, print_warning, room_of
from reclra_compile.cli.tables import NAME, NUMBER, Row, table
from reclra_compile.cli.train_setup import check_device
from reclra_compile.cost.files import keep, measured_dict, write_measured
from reclra_compile.cost.measured import Measured, time_of
from reclra_compile.errors import Notice
from reclra_compile.frontend.example import Example, example_of
from reclra_compile.frontend.load_model import Loaded, load_model
from reclra_compile.frontend.outputs import choose, pick
from reclra_compile.frontend.share import random_fork, shared_copy
from reclra_compile.ir import Plan
from reclra_compile.placement.times import task_us
from reclra_compile.profile.bench import Bench, bench, profile
from reclra_compile.profile.stand_in import rows, target_for
from reclra_compile.runtime.loss import LossFunction
from reclra_compile.spec.load import load_wiring
from reclra_compile.train.brought import brought_data, brought_loss
from reclra_compile.view.label import time_text

COLUMNS = {"F": "forward", "D": "errors", "T": "errors", "S": "errors", "U": "weights", "V": "synapses",
           "M": "synapses", "L": "errors"}  # fmt: skip


def carry_out(options: dict[str, Any]) -> str | None:
    """Measure what the command line asks for, keep it, and print it; returns JSON where that is wanted."""
    faults = Faults()
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    with faults.collected():
        check_device(options["device"])
    loaded: Loaded | None = None
    with faults.collected():  # before the wiring: the file may register rules that it names
        loaded = load_model(options["model"])
    with faults.collected():
        load_wiring(options["wiring"])
    with faults.collected():
        if loaded is not None:
            brought_loss(loaded)
    faults.report()
    assert loaded is not None
    with loaded.blamed():
        made = _bench(loaded, options)
    device = torch.device(options["device"])
    with DoneBar("profile", "rounds", options["as_json"]) as bar:
        measured = profile(made, device, options["rounds"], bar.step)
    kept = keep(measured)
    if options["out"]:
        write_measured(measured, options["out"])
    if options["as_json"]:
        return json.dumps(_data(made.plan, measured, str(kept) if kept else None), indent=2, ensure_ascii=False)
    print_report(lambda out: _draw(out, made.plan, measured))
    if kept:
        note(f"kept for --device-profile measured: {kept}")
    else:
        print_warning(Notice("the times are not kept: there is no cache folder to write to; give --out", "C102"))
    if options["out"]:
        note(f"times written to {options['out']}")
    return None


def _bench(loaded: Loaded, options: dict[str, Any]) -> Bench:
    """The model on its device, with a batch of the size that is asked for."""
    loss_fn = brought_loss(loaded)
    model = loaded.model.to(options["device"])
    example = example_of(model, loaded.inputs_on(options["device"]))
    count = options["batch_size"] or len(example.tensors[0])
    example = _resized(example, count)
    inputs, target = _batch(loaded, example, count, loss_fn, options["output"])
    return bench(
        model, example.named or example.args, options["wiring"], (*inputs, target), loss_fn=loss_fn,
        granularity=options["granularity"], output=options["output"], unreached=options["unreached"],
    )  # fmt: skip


def _resized(example: Example, count: int) -> Example:
    args, named = example.placed([rows(x, count) for x in example.tensors])
    return Example(args, named)


def _batch(
    loaded: Loaded, example: Example, count: int, loss_fn: LossFunction, output: str | int | None
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Samples of the model's own data, or its example inputs with targets that are made up."""
    data = brought_data(loaded)
    on = example.tensors[0].device
    if data is not None:
        found, y = data.split("train", example)
        return tuple(rows(x, count).to(on) for x in found), rows(y, count).to(on)
    args, named = example.placed(example.tensors)
    twin = shared_copy(loaded.model)
    with torch.no_grad(), random_fork(loaded.model):
        result = twin(*args, **named)
    return example.tensors, target_for(pick(result, choose(result, output, loaded.model)), loss_fn)


@dataclass(frozen=True, slots=True)
class Part:
    """What one region's tasks take in a step, in µs by column, and their FLOPs and bytes."""

    name: str
    us: dict[str, float]
    flops: int
    bytes: int

    @property
    def whole_us(self) -> float:
        """All columns."""
        return sum(self.us.values())


def parts_of(plan: Plan, measured: Measured) -> list[Part]:
    """The times of a step by region, in the model's order, and last what belongs to none."""
    goals = {p.name: p.target for p in plan.pathways}
    names = [r.name for r in plan.regions]
    us: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(COLUMNS.values(), 0.0))
    flops, moved = defaultdict[str, int](int), defaultdict[str, int](int)
    time = time_of(measured, plan, alone=True)
    for t in plan.tasks:
        if t.kind not in COLUMNS:
            continue
        owner = goals.get(t.subject, t.subject) if t.kind in "DVM" else t.subject
        owner = owner if owner in names else "loss" if t.kind == "L" else "all regions"
        us[owner][COLUMNS[t.kind]] += time(t, measured.device, 1)
        flops[owner] += t.flops
        moved[owner] += t.bytes
    return [Part(n, us[n], flops[n], moved[n]) for n in (*names, "all regions", "loss") if n in us]


def _data(plan: Plan, measured: Measured, kept: str | None) -> dict[str, Any]:
    found = measured_dict(measured)
    regions = [
        {"name": p.name, "us": p.us, "flops": p.flops, "bytes": p.bytes, "flops_per_s": _rate(p.flops, p.whole_us),
         "bytes_per_s": _rate(p.bytes, p.whole_us)}
        for p in parts_of(plan, measured)
    ]  # fmt: skip
    return {**found, "regions": regions, "rates_explain": _explained(plan, measured), "file": kept}


def _rate(amount: float, us: float) -> float:
    return amount / us * 1e6 if us else 0.0


def _explained(plan: Plan, measured: Measured) -> float:
    """What the fitted rates make of a step ÷ what it took."""
    found = sum(task_us(t, measured.device) for t in plan.tasks)
    whole = measured.step_us.get(plan.batch, 0.0)
    return found / whole if whole else 1.0


def _draw(out: Console, plan: Plan, measured: Measured) -> None:
    parts = parts_of(plan, measured)
    threads = f", {measured.threads} thread{'s' * (measured.threads > 1)}" if measured.processor == "cpu" else ""
    where = measured.host if measured.processor == "cpu" else measured.processor
    out.print(Text.assemble((plan.model, "bold"), " × ", (plan.name, "bold"), (f"   {plan.fingerprint}", "dim")))
    out.print(f"{where}{threads}, torch {measured.torch}, {measured.dtype}, batch {plan.batch}", soft_wrap=True)
    out.print()
    out.print(_table(parts, room_of(out)))
    out.print()
    steps = ", ".join(f"{time_text(us)} with {n}" for n, us in sorted(measured.step_us.items(), reverse=True))
    out.print(f"a step takes {steps} samples", soft_wrap=True)
    d = measured.device
    out.print(
        f"fitted rates: {d.flops_per_s / 1e9:.3g} GFLOP/s, {d.bytes_per_s / 1e9:.3g} GB/s, {d.task_us:.3g} µs to start "
        f"a task; they make {_explained(plan, measured):.2f} × the measured step",
        soft_wrap=True,
    )


def _table(parts: list[Part], room: int | None) -> Any:
    titles = [c for c in dict.fromkeys(COLUMNS.values()) if any(p.us[c] for p in parts)]

    def row(name: str, us: dict[str, float], flops: int, moved: int) -> Row:
        whole = sum(us.values())
        return (name, *(f"{us[c]:.1f}" if us[c] else "" for c in titles), f"{whole:.1f}",
                f"{_rate(flops, whole) / 1e9:.2f}", f"{_rate(moved, whole) / 1e9:.2f}")  # fmt: skip

    total = {c: sum(p.us[c] for p in parts) for c in COLUMNS.values()}
    columns = [("region", NAME), *((f"{c} µs", NUMBER) for c in titles), ("all µs", NUMBER), ("GFLOP/s", NUMBER),
               ("GB/s", NUMBER)]  # fmt: skip
    found: list[Row] = [row(p.name, p.us, p.flops, p.bytes) for p in parts]
    last = row("a step", total, sum(p.flops for p in parts), sum(p.bytes for p in parts))
    return table("microseconds of a step by region", columns, found, last, room)
