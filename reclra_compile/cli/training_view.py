"""Training as people see it: a progress bar per run, a line per epoch, and a table of results."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from types import TracebackType

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from reclra_compile.cli.report import console, human, note
from reclra_compile.train.job import Member, Result, mean_and_deviation
from reclra_compile.train.loop import Epoch, Run


class TrainingView:
    """Shows a job while it runs; as a context manager it owns the progress display."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.out = console(stderr=quiet)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=self.out,
            disable=quiet or not self.out.is_terminal,
            transient=True,
        )
        self.bar: TaskID | None = None
        self.state = ""
        self.lines: list[str] = []

    def __enter__(self) -> TrainingView:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.__exit__(kind, error, trace)

    def start(self, member: Member) -> None:
        """A new run begins."""
        if self.bar is not None:
            self.progress.remove_task(self.bar)
        self.bar, self.state = None, ""

    def step(self, member: Member, run: Run) -> None:
        """One optimizer step is done."""
        if self.progress.disable:
            return
        if self.bar is None:
            name = f"{member.label}, seed {member.seed}"
            total = run.steps * run.settings.epochs
            self.bar = self.progress.add_task(name, total=total, completed=run.epoch * run.steps, state="")
        self.progress.update(self.bar, advance=1, state=self.state)

    def epoch(self, member: Member, epoch: Epoch) -> None:
        """One epoch is done: a line for people, a record for the log."""
        self.lines.append(json.dumps({"wiring": member.label, "seed": member.seed, **epoch.as_json()}))
        test = "" if epoch.test_error is None else f"test {epoch.test_error:.2f} %"
        valid = "" if epoch.valid_error is None else f"validation {epoch.valid_error:.2f} %  "
        self.state = valid or test
        if not self.quiet:
            self.out.print(
                f"{member.label:<16} seed {member.seed}  epoch {epoch.epoch:>3}  loss {epoch.loss:.4f}  "
                f"train {epoch.train_error:.2f} %  {valid}{test}  D(Θ) {epoch.discrepancy:.2e}  {epoch.seconds:.1f} s",
                soft_wrap=True,
            )

    def log(self) -> str:
        """All epochs of all runs so far as JSON lines."""
        return "".join(line + "\n" for line in self.lines)

    def summary(self, results: list[Result], graph: str | None) -> None:
        """The table of results: test error per wiring, mean ± standard deviation over seeds."""
        if self.quiet:
            return
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("wiring", "test error %", "train error %", "epochs", "FLOPs ÷ backprop", "synapses", "s"):
            table.add_column(column, justify="left" if column == "wiring" else "right")
        for label, runs in _by_label(results).items():
            last = [r.history[-1] for r in runs]
            table.add_row(
                label,
                _plus_minus([r.test_error for r in runs]),
                _plus_minus([e.train_error for e in last]),
                str(last[0].epoch),
                f"{runs[0].plan.cost.ratio:.3f}",
                human(sum(p.synapses for p in runs[0].plan.pathways)),
                f"{mean_and_deviation(e.seconds for e in last)[0]:.1f}",
            )
        self.out.print(table)
        if graph:
            note(f"error graph: {graph}")


def _by_label(results: list[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for r in results:
        groups.setdefault(r.member.label, []).append(r)
    return groups


def _plus_minus(values: list[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.2f} ± {deviation:.2f}" if len(values) > 1 else f"{mean:.2f}"


def results_json(results: list[Result]) -> str:
    """{"results": [{wiring, seeds, test_error: {mean, std, each}, settings, history}]}."""
    rows = []
    for label, runs in _by_label(results).items():
        mean, deviation = mean_and_deviation(r.test_error for r in runs)
        each = [None if math.isnan(r.test_error) else r.test_error for r in runs]
        rows.append(
            {
                "wiring": label,
                "seeds": [r.member.seed for r in runs],
                "test_error": {"mean": mean, "std": deviation, "each": each},
                "flops_ratio": runs[0].plan.cost.ratio,
                "settings": asdict(runs[0].settings),
                "history": [[e.as_json() for e in r.history] for r in runs],
            }
        )
    return json.dumps({"results": rows}, indent=2, ensure_ascii=False)
