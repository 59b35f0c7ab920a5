"""The table as Markdown, with the terms it was made under."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from reclra_compile.ir import Training
from reclra_compile.reproduce.schema import Scale
from reclra_compile.reproduce.summary import Line, tally
from reclra_compile.reproduce.tables import Table

MAIN = ("optimizer", "lr", "schedule", "batch_size", "epochs")  #: settings that are always said
SETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "imagenet": "ImageNet"}
TITLES = ("row", "data set", "{} error", "paper", "gap", "train error", "paper", "epochs", "time", "verdict")


def cells(line: Line) -> tuple[str, ...]:
    """The cells of one line, errors in percent, under TITLES."""
    paper = line.row.paper
    return (
        line.row.row, SETS.get(line.row.data, line.row.data), _seeds(line), _two(line.theirs),
        "–" if line.gap is None else f"{line.gap:+.2f}", str(line.train), _two(paper.train),
        _epochs(line), time_of(line.seconds), line.verdict,
    )  # fmt: skip


def markdown(
    table: Table, scale: Scale, lines: Sequence[Line], command: Sequence[str], pictures: Sequence[str] = ()
) -> str:
    """The page: title, table, terms, settings and notes."""
    spec = table.spec
    column = lines[0].column if lines else "test"
    titles = [t.format(f"our {column}") if "{}" in t else t for t in TITLES]
    out = [f"# {spec.title}", ""]
    out += [f"`{shlex.join(command)}`", "", _terms(scale, lines), ""]
    out += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    out += ["| " + " | ".join(c.replace("|", "\\|") for c in cells(line)) + " |" for line in lines]
    out += ["", tally(lines) + ".", ""]
    out += [f"![{name}]({name})\n" for name in pictures]
    for note in (spec.scales[scale].note if scale in spec.scales else "", spec.note):
        out += [note.strip(), ""] if note else []
    out += _settings(lines)
    notes = [f"- {line.row.row}, {line.row.data}: {line.row.note}" for line in lines if line.row.note]
    problems = [f"- {line.row.row}, {line.row.data}: {p}" for line in lines for p in line.problems]
    out += ["## Notes", "", *notes, ""] if notes else []
    out += ["## Rows that ended in an error", "", *problems, ""] if problems else []
    return "\n".join(out)


def _terms(scale: Scale, lines: Sequence[Line]) -> str:
    done = [r for line in lines for r in line.records]
    if not done:
        return f"Scale `{scale}`; no run is finished."
    counts = sorted({(r["images"]["train"], r["images"]["valid"], r["images"]["test"]) for r in done})
    images = " or ".join(f"{a:,} training, {b:,} validation, {c:,} test" for a, b, c in counts)
    versions = done[0]["versions"]
    return (
        f"Scale `{scale}`. Mean ± standard deviation over seeds, errors in percent; images: {images}. Settings were "
        "chosen on the validation images; the test images were looked at once, after the last epoch. Training error "
        f"is that of at most 10,000 training images. {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {versions['python']}, torch {versions['torch']}."
    )


def _settings(lines: Sequence[Line]) -> list[str]:
    out = ["## Settings", "", "| row | data set | wiring | settings | how found |", "|---|---|---|---|---|"]
    for line in lines:
        if not line.records:
            continue
        record = line.records[0]
        wiring = record["case"]["wiring"]
        named = line.row.wiring if isinstance(line.row.wiring, str) else "its own"
        changed = " with changes" if isinstance(wiring, dict) and line.row.change else ""
        settings = _said(record["settings"])
        out.append(f"| {line.row.row} | {line.row.data} | `{named}`{changed} | {settings} | {line.row.found} |")
    return [*out, ""]


def _said(settings: dict[str, Any]) -> str:
    """Settings in a line; those that do nothing here are left out."""
    plain = asdict(Training())
    said = [(k, v) for k, v in settings.items() if k in MAIN or v != plain.get(k)]
    return ", ".join(f"{k} {v:g}" if isinstance(v, int | float) else str(v) for k, v in said)


def _seeds(line: Line) -> str:
    n = len(line.records)
    return "–" if not n else f"{line.ours} ({n} seed{'s' if n > 1 else ''})"


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _epochs(line: Line) -> str:
    ours, theirs = line.epochs, line.row.paper.epochs
    if ours is None:
        return "–"
    return f"{ours}" + (f" (paper {theirs})" if theirs else "")


def time_of(seconds: float | None) -> str:
    """A duration for people: 41 s, 12 min, 3.2 h."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
