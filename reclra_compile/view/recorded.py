"""When the tasks of a step ran, as predicted or as measured: what a timeline shows, and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reclra_compile.errors import Fault, Location, UserError
from reclra_compile.ir import Plan

if TYPE_CHECKING:
    from reclra_compile.simulate.events import Simulation

SOURCES = ("predicted", "measured")
#: a picture of more becomes slow; the beginning of the step is kept
MOST_SPANS = 20_000
#: microseconds, about thirty years: no step is longer, and sums of such times are finite
_LONGEST = 1e15
_KEYS = {"version", "source", "devices", "spans"}


@dataclass(frozen=True, slots=True)
class Span:
    """Task number `task` of the plan's tasks on microbatch `microbatch`: from `start_us` to `end_us` on a device."""

    task: int
    microbatch: int
    device: int
    start_us: float
    end_us: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """A step's tasks in time, in microseconds from its beginning; `source` is "predicted" or "measured".

    `str()` is its text, one JSON document, and `Recorded.read(text)` reads it back equal. `Span.device` is an index of
    `devices`. `until_us` is the length of the step, 0 where the last span ends it.
    """

    devices: tuple[str, ...]
    spans: tuple[Span, ...]
    source: str = "predicted"
    until_us: float = 0.0

    @property
    def end_us(self) -> float:
        """When the step ends."""
        return max(self.until_us, max((s.end_us for s in self.spans), default=0.0))

    def __str__(self) -> str:
        head = {"version": 1, "source": self.source, "until_us": self.until_us, "devices": self.devices}
        rows = ",\n".join(
            json.dumps([s.task, s.microbatch, s.device, s.start_us, s.end_us], separators=(",", ":"))
            for s in self.spans
        )
        return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "spans": [\n{rows}\n]}}\n'

    @classmethod
    def read(cls, text: str, file: str = "<trace>") -> Recorded:
        """The step that a text tells of; raises UserError (V005) where it is none."""
        try:
            found = json.loads(text)
            if not isinstance(found, dict) or not set(found) >= _KEYS or found["version"] != 1:
                raise ValueError("it has no version 1, source, devices and spans")
            return _made(found)
        except (ValueError, TypeError, RecursionError) as e:
            raise UserError(
                Fault("V005", f"not a recorded step: {e}", Location(file), fix="record one with `train --trace FILE`")
            ) from None

    def check(self, plan: Plan, file: str = "") -> None:
        """Raise UserError (V006) where spans are of tasks, microbatches or devices that `plan` does not have.

        Devices beyond the plan's are those of further replicas, in the plan's order, and replicas share a count of
        microbatches.
        """
        devices = max(len(plan.devices), 1)
        many = plan.schedule.microbatches * max(len(self.devices) // devices, 1)
        for s in self.spans:
            task = plan.tasks[s.task] if s.task < len(plan.tasks) else None
            if task is None or task.kind == "X":
                what = f"a task number {s.task}"
            elif s.microbatch >= many:
                what = f"a microbatch number {s.microbatch}, of {many}"
            elif s.device >= len(self.devices) or s.device % devices != task.device:
                what = f"{task.id} on device {s.device}"
            else:
                continue
            raise UserError(
                Fault("V006", f"the trace is of another plan: it has {what}", Location(file) if file else None,
                      "record it again with this plan, or draw the plan it was recorded with")
            )  # fmt: skip

    def check_measured(self, file: str = "<trace>") -> None:
        """Raise UserError (V005) where nothing was measured: no task ran, or the step is a predicted one."""
        if self.source != "measured" or not self.spans:
            what = f"it is {self.source}" if self.source != "measured" else "no task ran in it"
            raise UserError(
                Fault("V005", f"not a recorded step: {what}", Location(file), "record one with `train --trace FILE`")
            )


def of_simulation(plan: Plan, most: int = MOST_SPANS, step: Simulation | None = None) -> Recorded:
    """The step as predicted (`step`, where it is simulated already), cut off after about `most` spans; raises PlanError
    as `plan.simulate` does.
    """
    step = step or plan.simulate()
    many = plan.schedule.microbatches * step.batches
    spans = []
    for i, task in enumerate(plan.tasks):
        if task.kind == "X" or not step.layout.length_us[i]:
            continue
        # the microbatches of a task follow each other, so that those beyond `most` cannot be among the first
        starts, ends = step.starts(i)[: min(many, most)].tolist(), step.ends(i)[: min(many, most)].tolist()
        spans += [Span(i, m, task.device, s, e) for m, (s, e) in enumerate(zip(starts, ends, strict=True))]
    spans.sort(key=lambda s: (s.start_us, s.device, s.task, s.microbatch))
    return Recorded(tuple(d.name for d in plan.devices), tuple(spans[:most]), "predicted", step.makespan_us)


def _made(found: dict[str, Any]) -> Recorded:
    if found["source"] not in SOURCES:
        raise ValueError(f"source is {found['source']!r}, not predicted or measured")
    devices = found["devices"]
    if not isinstance(devices, list) or not all(isinstance(d, str) for d in devices):
        raise ValueError("devices is no list of names")
    until = found.get("until_us", 0.0)
    if not isinstance(found["spans"], list):
        raise ValueError("spans is no list")
    spans = [_span(row) for row in found["spans"]]
    if not is_time(until) or any(s.device >= len(devices) for s in spans):
        raise ValueError("a span's device or the step's length is out of range")
    return Recorded(tuple(devices), tuple(spans), found["source"], float(until))


def _span(row: Any) -> Span:
    if not isinstance(row, list) or len(row) != 5:
        raise ValueError(f"{_cut(row)} is no span [task, microbatch, device, start, end]")
    whole = all(type(v) is int and 0 <= v < 2**31 for v in row[:3])
    if not whole or not all(is_time(v) for v in row[3:]) or row[4] < row[3]:
        raise ValueError(f"the span {_cut(row)} has a number out of range")
    return Span(row[0], row[1], row[2], float(row[3]), float(row[4]))


def _cut(row: Any) -> str:
    text = repr(row)
    return text if len(text) <= 80 else f"{text[:79]}…"


def is_time(value: Any) -> bool:
    """Whether a value is a time in microseconds that a step can have."""
    return type(value) in (int, float) and 0 <= value <= _LONGEST
