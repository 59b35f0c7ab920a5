"""When the tasks of real steps ran: a clock read before and after each, of one process, of threads, or of all ranks."""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from reclra_compile.ir import Plan
from reclra_compile.runtime.linked import Step
from reclra_compile.runtime.state import Slots
from reclra_compile.simulate.measured import Taken, write_measured
from reclra_compile.view.recorded import Recorded, Span

if TYPE_CHECKING:
    from reclra_compile.runtime.program import Program

TIMES = 5  #: how often ranks of several hosts read their clocks together


@dataclass(frozen=True, slots=True)
class Part:
    """What one process knows: its host, what its clock said when all met, and of each step begin, end and spans.

    Microseconds of this host's clock. Spans are (task, microbatch, device, start, end).
    """

    host: str
    clock: tuple[float, ...]
    steps: tuple[tuple[float, float, tuple[tuple[int, int, int, float, float], ...]], ...]


class Recorder:
    """Records the steps of a program while it is in `recording`; one from `begin` to `end`, or as a context manager."""

    def __init__(self, program: Program, first: int = 1) -> None:
        """`first` is the number of the first step that is recorded."""
        self.program, self.first = program, first
        self._wait = _waiter(program)
        self._steps: list[tuple[float, float, tuple[tuple[int, int, int, float, float], ...]]] = []
        self._spans: list[tuple[int, int, int, float, float]] = []
        self._plain: list[Step] = []
        self._begun = 0.0

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(kept=kind is None)  # a step that failed is no step

    def begin(self) -> None:
        """A step begins; one that began before and did not end, such as a forward pass alone, is forgotten."""
        self.restore()
        program, peers = self.program, self.program.peers
        placed = [peers.replica * len(program.plan.devices) + t.device for t in program.plan.tasks]
        self._plain = program._steps
        program._steps = [
            run if t.kind == "X" else self._timed(i, placed[i], run)
            for i, (t, run) in enumerate(zip(program.plan.tasks, self._plain, strict=True))
        ]
        self._wait()
        self._begun = _now()

    def end(self, kept: bool = True) -> None:
        """The step ends, and is `kept`."""
        if kept and self._plain:
            self._wait()
            self._steps.append((self._begun, _now(), tuple(self._spans)))
        self.restore()

    def restore(self) -> None:
        """Let the program's tasks be as they were."""
        if self._plain:
            self.program._steps = self._plain
        self._plain, self._spans = [], []

    def _timed(self, task: int, device: int, run: Step) -> Step:
        wait = self._wait

        def timed(v: Slots) -> None:
            start = _now()
            run(v)
            wait()
            self._spans.append((task, v[0].number, device, start, _now()))

        return timed

    def part(self, together: bool = True) -> Part:
        """What this process has recorded; with `together` the clocks of all ranks are read at once (collective)."""
        peers, clock = self.program.peers, []
        for _ in range(TIMES if together and peers.count > 1 else 0):
            peers.barrier()
            clock.append(_now())
        return Part(_host(), tuple(clock), tuple(self._steps))

    def taken(self) -> tuple[Taken, ...]:
        """The steps with the tasks of all ranks. Every rank calls it."""
        mine, peers = self.part(), self.program.peers
        texts = peers.gather(json.dumps([mine.host, mine.clock, mine.steps]))
        parts = [Part(host, tuple(clock), tuple((b, e, tuple(map(tuple, spans))) for b, e, spans in steps))
                 for host, clock, steps in map(json.loads, texts)]  # fmt: skip
        return merged(self.program.plan, parts, peers.replicas, self.first)

    def write(self, path: str | Path, batch: int) -> float | None:
        """Write the steps, of `batch` samples, for Perfetto and for `graph --trace`; the median's microseconds.

        Every rank calls it, and rank 0 writes; None elsewhere, or where no step was recorded. Raises UserError (F001).
        """
        taken = self.taken()
        if self.program.peers.rank or not taken:
            return None
        return write_measured(str(path), self.program.plan, taken, batch // self.program.peers.replicas)


class Recorders:
    """The recorders of threads, each of which runs the tasks of one device."""

    def __init__(self, plan: Plan, each: Sequence[Recorder]) -> None:
        self._plan, self._each = plan, each

    def taken(self) -> tuple[Taken, ...]:
        """The steps with the tasks of all devices."""
        return merged(self._plan, [r.part(together=False) for r in self._each], 1, 1)

    def write(self, path: str | Path, batch: int) -> float | None:
        """Write the steps as `Recorder.write` does; None where none was recorded. Raises UserError (F001)."""
        taken = self.taken()
        return write_measured(str(path), self._plan, taken, batch) if taken else None


@contextlib.contextmanager
def recording(program: Program, first: int = 1) -> Iterator[Recorder]:
    """Inside, the program's steps are recorded; outside, recording costs nothing."""
    before, recorder = program.recorder, Recorder(program, first)
    program.recorder = recorder
    try:
        yield recorder
    finally:
        program.recorder = before
        recorder.restore()


def merged(plan: Plan, parts: Sequence[Part], replicas: int, first: int) -> tuple[Taken, ...]:
    """The steps of all processes on the clock of the first one, each from the begin of whoever begins it first."""
    zero = parts[0]
    names = [d.name for d in plan.devices]
    devices = [f"{n}, replica {r + 1}" if replicas > 1 else n for r in range(replicas) for n in names]
    # processes of one host share a clock; others differ from it by what they read when all had met
    late = [0.0 if p.host == zero.host else median(a - b for a, b in zip(p.clock, zero.clock, strict=True))
            for p in parts]  # fmt: skip
    found = []
    for k in range(min(len(p.steps) for p in parts)):
        begun = min(p.steps[k][0] - lag for p, lag in zip(parts, late, strict=True))
        ended = max(p.steps[k][1] - lag for p, lag in zip(parts, late, strict=True))
        spans = sorted(
            (Span(i, m, d, round(max(s - lag - begun, 0.0), 3), round(max(e - lag - begun, 0.0), 3))
             for p, lag in zip(parts, late, strict=True) for i, m, d, s, e in p.steps[k][2]),
            key=lambda s: (s.start_us, s.device, s.task, s.microbatch),
        )  # fmt: skip
        found.append(Taken(first + k, begun, Recorded(tuple(devices), tuple(spans), "measured",
                                                      round(ended - begun, 3))))  # fmt: skip
    return tuple(found)


def _now() -> float:
    """Microseconds of a clock that all processes of this host share."""
    return time.perf_counter_ns() / 1e3


def _host() -> str:
    """What tells this host's clock from another's."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def _waiter(program: Program) -> Callable[[], None]:
    """What waits until the program's devices have done all their work; nothing on a CPU."""
    devices = {p.device for p in program.parameters() if p.device.type in ("cuda", "mps")}

    def wait() -> None:
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            else:
                torch.mps.synchronize()

    return wait if devices else lambda: None
