"""Training as people see it: a progress bar per run, a line per epoch, and a table of results."""

from __future__ import annotations

import time
from collections.abc import Sized
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol

from rich.markup import escape

from reclra_compile.cli.report import console, count, hint, human, note, print_warning
from reclra_compile.cli.train_setup import Setup
from reclra_compile.cli.training_progress import OFTEN, Pace, RunProgress, clock_text
from reclra_compile.cli.training_records import Records
from reclra_compile.cli.training_results import by_label, comparison, mean_text, results_table, time_text
from reclra_compile.data.imagefolder import ImageFolder
from reclra_compile.data.own import OwnData
from reclra_compile.data.sets import DataSet
from reclra_compile.errors import Notice
from reclra_compile.ir import Training
from reclra_compile.spec.load import shipped
from reclra_compile.train.job import Member, Result
from reclra_compile.train.loop import Epoch, Run
from reclra_compile.train.measure import Measure
from reclra_compile.train.steps import Live, Step, live_part

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

    @property
    def live(self) -> Live | None:
        """What is known within the epoch."""


class TrainingView:
    """Shows a job while it runs and keeps its records; as a context manager it owns the progress display."""

    def __init__(self, setup: Setup, quiet: bool, records: Records) -> None:
        self.setup, self.quiet, self.records = setup, quiet, records
        self.out = console(stderr=quiet)
        self.progress = RunProgress(self.out, quiet or not self.out.is_terminal)
        self.runs = 0
        self._names: list[str] = []
        self._pace = Pace(1, 1, 0)
        self._last: Epoch | None = None
        self._shown = 0.0

    def __enter__(self) -> TrainingView:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.__exit__(kind, error, trace)
        self.records.close()

    def start(self, member: Member, run: Shown, history: list[Epoch]) -> None:
        """A run begins, or goes on after the epochs of `history`."""
        self.records.start(member, run.epoch, run.taken, history, run.steps)
        name, total = _name(member), run.steps * run.settings.epochs
        if name not in self._names:  # a run that is started again is the same one
            self._names.append(name)
        several = f" ({len(self._names)} of {len(self.setup.members)})" if len(self.setup.members) > 1 else ""
        self._pace, self._last = Pace(run.steps, total, run.taken), history[-1] if history else None
        self.progress.begin(name + several, total, run.taken)
        if not self.quiet:
            if self.runs:
                self.out.print()
            self.runs += 1
            self.out.print(f"[bold]{escape(name)}[/]: {_settings(run.settings)}", soft_wrap=True)
            if run.epoch < run.settings.epochs:
                self.out.print(_titles(run), style="dim", soft_wrap=True)
            for epoch in history[-1:]:
                self.out.print(f"{_line(epoch, run)}  from the checkpoint", soft_wrap=True)

    def step(self, member: Member, run: Shown) -> None:
        """One optimizer step is done."""
        self._pace.step(run.taken)
        now, evaluates = time.monotonic(), run.taken >= (run.epoch + 1) * run.steps
        if self.progress.disable or (now - self._shown < OFTEN and not evaluates):  # what is shown has to be computed
            return
        self._shown = now
        if isinstance(run, Run) and run.program.peers.count == 1:
            run.live = live_part(run)
        over = run.epoch >= run.settings.epochs
        self.progress.show(run.taken, "" if over else f"{clock_text(self._pace.left)} left", self._known(run))

    def logged(self, member: Member, step: Step) -> None:
        """One of the steps that are written is done."""
        self.records.step(member, step)

    def epoch(self, member: Member, run: Shown, epoch: Epoch) -> None:
        """One epoch is done: a line for people, a record for the log."""
        self.records.epoch(member, epoch, run.steps)
        self._pace.step(run.taken)
        self._pace.epoch()
        self._last = epoch
        if not self.quiet:
            self.out.print(_line(epoch, run), soft_wrap=True)

    def _known(self, run: Shown) -> list[tuple[str, int]]:
        """What the line under the bar says, each with how easily it can be done without."""
        if run.epoch >= run.settings.epochs:
            return []
        pace, within = self._pace, run.taken - run.epoch * run.steps
        epoch = f"epoch {min(run.epoch + 1, run.settings.epochs)}/{run.settings.epochs}"
        left = "evaluating" if within >= run.steps else f"{clock_text(pace.epoch_left(within))} left"
        parts = [(f"{epoch}, {left}", 0)]
        if run.live is not None:
            parts += [(f"loss {run.live.loss:.4f}", 1), (f"D(Θ) {run.live.discrepancy:.2e}", 3)]
        if self._last is not None:
            valid, test = self._last.valid_error, self._last.test_error
            kind, error = ("valid", valid) if valid is not None else ("test", test)
            if error is not None:
                parts.append((f"{kind} {mean_text([error], run.measure)}", 2))
        after = len(self.setup.members) - len(self._names)
        if after and pace.left is not None and pace.whole is not None:
            parts.append((f"{clock_text(pace.left + after * pace.whole)} left of all", 4))
        if pace.per_step:
            parts.append((f"{human(run.settings.batch_size / pace.per_step)} samples/s", 5))
        return parts

    def again(self, text: str) -> None:
        """The processes of a run were started again."""
        self.out.print(escape(text), style="yellow", soft_wrap=True)

    def warn(self) -> None:
        """What plans warn of, each once, on standard error before anything is trained; with --json results have it.

        That an entry of a shipped wiring has no effect (W101) is left to `compile`: they are for models of any depth.
        """
        if self.quiet:
            return
        out, labels = console(stderr=True), dict[Notice, list[str]]()
        for label, plan in self.setup.plans.items():
            for warning in plan.warnings:
                if warning.code != "W101" or label not in shipped():
                    labels.setdefault(warning, []).append(label)
        for warning, of in labels.items():
            named = f"{', '.join(of)}: " if len(self.setup.plans) > 1 else ""
            print_warning(replace(warning, message=f"{named}{warning.message}"), out)
        hint(out, [w.code for w in labels])

    def summary(self, results: list[Result]) -> None:
        """The table of results, the first wiring beside the others."""
        if self.quiet or not results:
            return
        groups = by_label(results)
        self.out.print()
        self.out.print(results_table(groups, self.out.width, self.setup.job.measure))
        self.out.print()
        for line in comparison(groups, self.setup.job.measure):
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
                f"{count(settings.epochs, 'epoch')} of batch {settings.batch_size}, {shown}")  # fmt: skip

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
              shown(e.test_error), f"{e.discrepancy:.2e}", time_text(e.seconds))  # fmt: skip
    return _cells(values, run)
