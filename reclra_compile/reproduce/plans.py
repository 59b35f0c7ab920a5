"""Rows too large to run here: each is compiled at full size without weights, for its cost and its command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reclra_compile.errors import ReclraError
from reclra_compile.reproduce.cases import Case, at_scale, case_of
from reclra_compile.reproduce.schema import Row
from reclra_compile.reproduce.tables import Table

IMAGES = 1_281_167  #: training images of ILSVRC 2012, which has the same 1000 classes and sizes as 2010's
TERA = 1e12


@dataclass(frozen=True)
class Planned:
    """A row's plan: FLOPs of one image's training step, how many times backprop's they are, parameters, synapses,
    waves; or the problem that keeps it from being compiled.
    """

    row: Row
    case: Case
    epochs: int
    problem: str = ""
    flops: float = 0.0
    ratio: float = 0.0
    parameters: int = 0
    synapses: int = 0
    waves: int = 0

    def hours(self, tflops: float) -> float:
        """Expected hours on one GPU that sustains so many TFLOP/s."""
        return self.flops * IMAGES * self.epochs / (tflops * TERA) / 3600

    def as_json(self, tflops: float) -> dict[str, Any]:
        """The row as data."""
        facts = ("flops", "ratio", "parameters", "synapses", "waves", "epochs", "problem")
        return {
            "row": self.row.row, "data": self.row.data, "paper": self.row.paper.model_dump(exclude_none=True),
            **{f: getattr(self, f) for f in facts}, "hours": self.hours(tflops), "settings": self.case.settings,
        }  # fmt: skip


def planned(table: Table, rows: Sequence[Row]) -> list[Planned]:
    """Every row's plan, at the sizes and settings of scale `paper`."""
    return [_planned(table, row) for row in rows]


def _planned(table: Table, row: Row) -> Planned:
    from reclra_compile.compiler import plan_for
    from reclra_compile.frontend.load_model import load_model

    case = case_of(table, row, at_scale(table, row, "paper"))
    epochs = int(case.settings.get("epochs", 1))
    if case.problem:
        return Planned(row, case, epochs, case.problem)
    try:
        loaded = load_model(case.model, meta=True)
        with loaded.blamed():
            plan = plan_for(loaded.model, loaded.inputs, case.wiring, granularity=case.granularity)
    except ReclraError as error:
        return Planned(row, case, epochs, "; ".join(f.message for f in error.faults))
    return Planned(
        row, case, epochs, flops=plan.cost.flops / plan.batch, ratio=plan.cost.ratio,
        parameters=sum(r.parameter_count for r in plan.regions), synapses=sum(p.synapses for p in plan.pathways),
        waves=len(plan.waves),
    )  # fmt: skip


def command(p: Planned, data_dir: str, run_dir: str) -> list[str]:
    """The `reclra-compile train` command that runs a row; run again, it goes on from its last epoch."""
    case = p.case
    here = os.path.relpath(case.model)
    model = case.model if here.startswith("..") else here
    words = ["reclra-compile", "train", model, "--wiring", str(case.wiring)]
    words += ["--granularity", case.granularity] if case.granularity else []
    words += ["--data", "imagefolder", "--data-dir", data_dir, "--augment", case.augment or "none"]
    for key, value in case.settings.items():
        words += [f"--{key.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return [*words, "--top5", "--device", "cuda", "--run-dir", f"{run_dir}/{case.name.removesuffix('-seed0')}"]


def script(table: Table, plans: Sequence[Planned], data_dir: str | None, tflops: float, run_dir: str) -> str:
    """A shell script with the command of every row."""
    lines = [
        "#!/bin/sh",
        f"# {table.spec.title}.",
        "# Usage: sh table3.sh FOLDER. FOLDER has train/CLASS/*.JPEG and val/CLASS/*.JPEG, one folder for each of the",
        "# 1000 classes. A row that was interrupted goes on from its last epoch when the script is run again.",
        "set -eu",
        f"DATA=${{1:-{shlex.quote(data_dir)}}}" if data_dir else 'DATA=${1:?the folder of ImageNet}',
        "go() {",
        "  dir=$1; shift",
        '  if ls "$dir"/*/seed*/checkpoint.pt >/dev/null 2>&1; then set -- "$@" --resume; fi',
        '  "$@"',
        "}",
        "",
    ]  # fmt: skip
    for p in plans:
        if p.problem:
            lines += [f"# {p.row.row}: cannot be run: {p.problem}", ""]
            continue
        words = command(p, "DATA", run_dir)
        text = shlex.join(words).replace("--data-dir DATA", '--data-dir "$DATA"')
        lines += [f"# {p.row.row}: {_paper(p)}; about {p.hours(tflops):.0f} h at {tflops:g} TFLOP/s",
                  f"go {shlex.quote(words[-1])} {text}", ""]  # fmt: skip
    return "\n".join(lines)


def _paper(p: Planned) -> str:
    paper = p.row.paper
    top5 = "" if paper.top5 is None else f", top-5 {paper.top5:.2f}"
    return "no number in the paper" if paper.top1 is None else f"the paper has top-1 {paper.top1:.2f}{top5} %"


TITLES = ("row", "top-1", "top-5", "GFLOP", "× BP", "parameters", "synapses", "waves", "hours")


def cells(p: Planned, tflops: float) -> tuple[str, ...]:
    """One line of the table, under TITLES."""
    paper = [("–" if v is None else f"{v:.2f}") for v in (p.row.paper.top1, p.row.paper.top5)]
    if p.problem:
        return (p.row.row, *paper, *["–"] * 6)
    parameters, synapses = (f"{n / 1e6:.1f}M" for n in (p.parameters, p.synapses))
    facts = f"{p.flops / 1e9:.2f}", f"{p.ratio:.3f}", parameters, synapses, f"{p.waves}"
    return (p.row.row, *paper, *facts, f"{p.hours(tflops):.1f}")


def page(table: Table, plans: Sequence[Planned], tflops: float, files: Sequence[Path], data_dir: str | None) -> str:
    """The table as Markdown, with the commands where they are written."""
    out = [f"# {table.spec.title}", "", _terms(plans, tflops), "", "| " + " | ".join(TITLES) + " |"]
    out += ["|" + "---|" * len(TITLES)]
    out += ["| " + " | ".join(cells(p, tflops)) + " |" for p in plans]
    out += ["", table.spec.note.strip(), ""]
    out += [f"- {p.row.row}: {p.problem}" for p in plans if p.problem]
    if files:
        where = data_dir or "FOLDER"
        out += ["", "## Commands", "", f"All rows: `sh {files[0]} {where}`. Single rows:", ""]
        for p in (p for p in plans if not p.problem):
            said = shlex.join(command(p, where, str(files[0].parent / "runs")))
            out += [f"{p.row.row}, about {p.hours(tflops):.0f} h:", "", "```text", said, "```", ""]
        out += [f"`{where}` has `train/CLASS/*.JPEG` and `val/CLASS/*.JPEG`, one folder for each class.", ""]
    return "\n".join(out)


def _terms(plans: Sequence[Planned], tflops: float) -> str:
    epochs = sorted({p.epochs for p in plans})
    return (
        "Nothing is trained here: every row is compiled at full size without weights, and its cost is predicted. "
        "top-1 and top-5 are the paper's errors; GFLOP are those of a training step, for each image, and × BP is their "
        f"ratio to backprop's on the same network. Hours are for {' or '.join(map(str, epochs))} epochs of "
        f"{IMAGES:,} images on one GPU that sustains "
        f"{tflops:g} TFLOP/s (`--tflops`). The paper's 3 h 45 min for backprop on 8 V100s are about 12 TFLOP/s each."
    )
