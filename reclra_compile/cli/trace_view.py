"""`--trace` of a run: some of its steps are recorded, and written to a file by the first rank."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from reclra_compile.ir import Plan
from reclra_compile.runtime.recorder import Recorder
from reclra_compile.simulate.measured import read_trace
from reclra_compile.train.job import Member, Watcher
from reclra_compile.train.loop import Epoch, Run
from reclra_compile.view.label import time_text


def traced(watcher: Watcher, member: Member, members: tuple[Member, ...], options: dict[str, Any]) -> Watcher:
    """The watcher of a run that also records it: of several runs, the first one."""
    if not options["trace"] or member is not members[0]:
        return watcher
    first, last = map(int, options["trace_steps"].split("-"))
    return Tracer(watcher, Path(options["trace"]), (first, last))


class Tracer:
    """Records the steps from the first to the last of `steps`, counted from where the run starts or goes on.

    A run with fewer steps is recorded at its end. What happens is passed on to `watcher`.
    """

    def __init__(self, watcher: Watcher, file: Path, steps: tuple[int, int]) -> None:
        self._watcher, self._file = watcher, file
        self._first, self._last = steps
        self._begun = 0
        self._recorder: Recorder | None = None
        self.epoch = watcher.epoch

    def start(self, member: Member, run: Run, history: list[Epoch]) -> None:
        """A run begins, or goes on after the epochs of `history`."""
        self._watcher.start(member, run, history)
        self._begun = run.taken
        self._last = min(self._last, run.steps * run.settings.epochs - run.taken)
        self._first = min(self._first, self._last)
        self._turn(run)

    def step(self, member: Member, run: Run) -> None:
        """One optimizer step is done."""
        self._watcher.step(member, run)
        self._turn(run)

    def _turn(self, run: Run) -> None:
        """Begin before the first step to record, and write after the last; all ranks do so at the same step."""
        done = run.taken - self._begun
        if done == self._first - 1:
            self._recorder = run.program.recorder = Recorder(run.program, run.taken + 1)
        if done == self._last and self._recorder is not None:
            run.program.recorder = None
            self._recorder.write(self._file, run.settings.batch_size)
            self._recorder = None


class TraceFile:
    """The file of `--trace` (None: not asked for) as it was before the run."""

    def __init__(self, file: str | None) -> None:
        self._file, self._before = file, self._stamp(file)

    def said(self, plan: Plan) -> str | None:
        """Where the trace is, the median step in it, and what was predicted for it; None where none is asked for."""
        file = self._file
        if not file:
            return None
        if self._stamp(file) == self._before:
            return "none, as no step was taken"
        trace = read_trace(file)
        steps = f"{len(trace.steps_us)} step{'s' * (len(trace.steps_us) != 1)}, the median {time_text(trace.step_us)}"
        ratio = trace.against(plan)
        predicted = f" = {ratio:.2f} × the prediction" if ratio else ""
        return f"{file} ({steps}{predicted}); for ui.perfetto.dev, or `reclra-compile graph PLAN --trace {file}`"

    @staticmethod
    def _stamp(file: str | None) -> int:
        try:
            return os.stat(file).st_mtime_ns if file else 0
        except OSError:
            return 0
