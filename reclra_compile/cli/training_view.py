"""Training as people see it: a progress bar per run, a line per epoch, and a table of results."""

from __future__ import annotations

import json
import math
from collections.abc import Sized
from dataclasses import asdict
from types import TracebackType
from typing import Any, Protocol

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from reclra_compile.cli.report import console, human, note
from reclra_compile.cli.tables import NAME, NUMBER, Cell, table
from reclra_compile.cli.train_setup import Setup
from reclra_compile.data.imagefolder import ImageFolder
from reclra_compile.data.own import OwnData
from reclra_compile.data.sets import DataSet
from reclra_compile.files import write_text
from reclra_compile.ir import Training
from reclra_compile.train.job import Member, Result, mean_and_deviation
from reclra_compile.train.loop import Epoch
from reclra_compile.train.measure import Measure

#: columns of the lines that epochs print: title, width, and how a value is written
COLUMNS = (("epoch", 7), ("loss", 8), ("train %", 8), ("valid %", 8), ("test %", 8), ("D(Θ)", 10), ("time", 9))


class Shown(Protocol):
    """What is shown of a run, in this process or in others; `valid`'s second part is as long as the held-out data."""

    @property
    def steps(self) -> int:
        """Steps in an epoch."""

    @property
    def taken(self) -> int:
        """Steps done so far."""

    @property
    def epoch(self) -> int:
        """Epochs done so far."""

    @property
    def settings(self) -> Training:
        """Its settings."""

    @property
    def measure(self) -> Measure:
        """Whether errors or losses are shown."""

    @property
    def valid(self) -> tuple[Any, Sized] | None:
        """The held-out data."""


class TrainingView:
    """Shows a job while it runs and keeps its log; as a context manager it owns the progress display."""

    def __init__(self, setup: Setup, quiet: bool, log: str | None = None) -> None:
        self.setup, self.quiet, self.log = setup, quiet, log
        self.out = console(stderr=quiet)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=self.out,
            disable=quiet or not self.out.is_terminal,
            transient=True,
            expand=True,
        )
        self.bar: TaskID | None = None
        self.runs = 0
        self.lines: dict[tuple[str, int, int], str] = {}

    def __enter__(self) -> TrainingView:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.__exit__(kind, error, trace)

    def start(self, member: Member, run: Shown, history: list[Epoch]) -> None:
        """A run begins, or goes on after the epochs of `history`."""
        for epoch in history:
            self._record(member, epoch)
        self._write_log()
        if self.bar is not None:
            self.progress.remove_task(self.bar)
        total = run.steps * run.settings.epochs
        self.bar = self.progress.add_task(escape(_name(member)), total=total, completed=run.taken)
        if not self.quiet:
            if self.runs:
                self.out.print()
            self.runs += 1
            self.out.print(f"[bold]{escape(_name(member))}[/]: {_settings(run.settings)}", soft_wrap=True)
            if run.epoch < run.settings.epochs:
                self.out.print(_titles(run), style="dim", soft_wrap=True)
            for epoch in history[-1:]:
                self.out.print(f"{_line(epoch, run)}  from the checkpoint", soft_wrap=True)

    def step(self, member: Member, run: Shown) -> None:
        """One optimizer step is done."""
        if self.bar is not None:
            self.progress.update(self.bar, completed=run.taken)

    def epoch(self, member: Member, run: Shown, epoch: Epoch) -> None:
        """One epoch is done: a line for people, a record for the log."""
        self._record(member, epoch)
        self._write_log()
        if not self.quiet:
            self.out.print(_line(epoch, run), soft_wrap=True)

    def _record(self, member: Member, epoch: Epoch) -> None:
        record = json.dumps({"wiring": member.label, "seed": member.seed, **epoch.as_json()}) + "\n"
        self.lines[member.label, member.seed, epoch.epoch] = record  # once: ranks that start again tell it again

    def _write_log(self) -> None:
        if self.log:
            write_text(self.log, "".join(self.lines.values()))

    def again(self, text: str) -> None:
        """The processes of a run were started again."""
        self.out.print(escape(text), style="yellow", soft_wrap=True)

    def summary(self, results: list[Result]) -> None:
        """The table of results, the first wiring beside the others."""
        if self.quiet or not results:
            return
        groups = _by_label(results)
        self.out.print()
        self.out.print(_results(groups, self.out.width, self.setup.job.measure))
        self.out.print()
        for line in _comparison(groups, self.setup.job.measure):
            self.out.print(escape(line), soft_wrap=True)
        if len(groups) > 1:
            self.out.print("same weights, data order, batches and epochs for all")
        self.out.print(escape(self._terms(results)), soft_wrap=True)

    def _terms(self, results: list[Result]) -> str:
        """Under which terms the results were reached."""
        data = self.setup.job.data
        seeds = sorted({r.member.seed for r in results})
        shown = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
        settings = results[0].settings
        treated = [kind for kind in (data.preprocess, self.setup.job.augment) if kind != "none"]
        done = f" ({', '.join(treated)})" if treated else ""
        return (f"{data.name}{done}: {data.count('train'):,} training and {data.count('test'):,} test {_things(data)}, "
                f"{settings.epochs} epochs of batch {settings.batch_size}, {shown}")  # fmt: skip

    def files(self, files: dict[str, str | None]) -> None:
        """Where things were written."""
        for what, file in files.items():
            if file and not self.quiet:
                note(f"{what}: {file}")


def _name(member: Member) -> str:
    return f"{member.label}, seed {member.seed}"


def _settings(s: Training) -> str:
    decay = f", decay {s.weight_decay:g}" if s.weight_decay else ""
    clip = f", clip {s.clip:g}" if s.clip else ""
    schedule = "" if s.schedule == "constant" else f" {s.schedule}"
    if s.schedule == "polynomial":
        schedule += f" to {s.lr_end:g}" + (f" with power {s.power:g}" if s.power != 1 else "")
    length = f"{100 * s.warmup:g} %" if s.warmup < 1 else f"{s.warmup:g} epoch{'s' if s.warmup != 1 else ''}"
    warmup = f" after a warm-up of {length}" if s.warmup else ""
    readouts = f", read-outs ×{s.readout_rate:g}" if s.readout_rate != 1 else ""
    return f"{s.optimizer}, lr {s.lr:g}{schedule}{warmup}{readouts}{decay}{clip}, batch {s.batch_size}"


def _things(data: DataSet | OwnData | ImageFolder) -> str:
    return "samples" if isinstance(data, OwnData) else "images"


def _cells(values: tuple[str, ...], run: Shown) -> str:
    validates = run.valid is not None and len(run.valid[1]) > 0
    cells = zip(COLUMNS, values, strict=True)
    return "".join(value.rjust(wide) for (title, wide), value in cells if validates or title != "valid %")


def _titles(run: Shown) -> str:
    """Errors are in percent; a loss has no unit."""
    return _cells(tuple(title if run.measure == "error" else title.removesuffix(" %") for title, _ in COLUMNS), run)


def _line(e: Epoch, run: Shown) -> str:
    def shown(error: float | None) -> str:
        return "" if error is None else f"{error:.2f}" if run.measure == "error" else f"{error:.4g}"

    values = (f"{e.epoch}/{run.settings.epochs}", f"{e.loss:.4f}", shown(e.train_error), shown(e.valid_error),
              shown(e.test_error), f"{e.discrepancy:.2e}", _time(e.seconds))  # fmt: skip
    return _cells(values, run)


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _results(groups: dict[str, list[Result]], room: int, measure: str) -> Table:
    top5 = all(r.history[-1].test_top5_error is not None for runs in groups.values() for r in runs)
    numbers = (f"test {measure}", *(("top-5",) if top5 else ()), f"train {measure}", "FLOPs ratio", "synapses", "time")
    columns = [("wiring", NAME), *((title, NUMBER) for title in numbers)]
    rows: list[list[Cell]] = []
    for label, runs in groups.items():
        last, plan = [r.history[-1] for r in runs], runs[0].plan
        rows.append([
            label, Text(_mean([r.test_error for r in runs], measure), "bold"),
            *([_mean([e.test_top5_error or 0.0 for e in last], measure)] if top5 else []),
            _mean([e.train_error for e in last], measure),
            f"{plan.cost.ratio:.3f}", human(sum(p.synapses for p in plan.pathways)),
            _time(mean_and_deviation(e.seconds for e in last)[0]),
        ])  # fmt: skip
    return table("results", columns, rows, None, room)


def _by_label(results: list[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for r in results:
        groups.setdefault(r.member.label, []).append(r)
    return groups


def _comparison(groups: dict[str, list[Result]], measure: str) -> list[str]:
    """The first wiring's test error (or loss) beside that of each other one."""
    (label, first), *others = groups.items()
    ours = [r.test_error for r in first]
    lines = []
    for other, runs in others:
        theirs = [r.test_error for r in runs]
        difference = mean_and_deviation(ours)[0] - mean_and_deviation(theirs)[0]
        amount = f"{abs(difference):.2f} points" if measure == "error" else f"{abs(difference):.4g}"
        side = f"{amount} {'below' if difference < 0 else 'above'}"
        if abs(difference) < (0.005 if measure == "error" else 5e-5):
            side = "the same as"
        lines.append(f"{label}: test {measure} {_mean(ours, measure)}, {side} {other}'s {_mean(theirs, measure)}")
    return lines or [f"{label}: test {measure} {_mean(ours, measure)}"]


def _mean(values: list[float], measure: str) -> str:
    """Mean and deviation: errors in percent, losses as they are."""
    mean, deviation = mean_and_deviation(values)
    if measure == "error":
        return f"{mean:.2f} ± {deviation:.2f} %" if len(values) > 1 else f"{mean:.2f} %"
    return f"{mean:.4g} ± {deviation:.2g}" if len(values) > 1 else f"{mean:.4g}"


def results_json(setup: Setup, results: list[Result]) -> str:
    """{"version", "data", "results": [{wiring, seeds, test_error: {mean, std, each}, settings, history}]}."""
    rows: list[dict[str, Any]] = []
    for label, runs in _by_label(results).items():
        errors = [r.test_error for r in runs]
        mean, deviation = mean_and_deviation(errors)
        rows.append(
            {
                "wiring": label,
                "seeds": [r.member.seed for r in runs],
                "test_error": {"mean": mean, "std": deviation, "each": errors},
                "test_top5_error": _top5(runs),
                "flops_ratio": runs[0].plan.cost.ratio,
                "settings": asdict(runs[0].settings),
                "history": [[_plain(e) for e in r.history] for r in runs],
            }
        )
    job = setup.job
    report = {"version": 1, "data": job.data.name, "preprocess": job.data.preprocess, "augment": job.augment,
              "measure": job.measure, "results": rows}  # fmt: skip
    return json.dumps(report, indent=2, ensure_ascii=False)


def _top5(runs: list[Result]) -> dict[str, Any] | None:
    """As `test_error`, or None where it was not measured."""
    found = [r.history[-1].test_top5_error for r in runs if r.history]
    errors = [e for e in found if e is not None]
    if not errors:
        return None
    mean, deviation = mean_and_deviation(errors)
    return {"mean": mean, "std": deviation, "each": errors}


def _plain(epoch: Epoch) -> dict[str, float | int | None]:
    """A record without the numbers that JSON does not have."""
    return {k: None if v is not None and not math.isfinite(v) else v for k, v in epoch.as_json().items()}
