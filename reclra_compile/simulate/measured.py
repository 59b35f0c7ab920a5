"""Steps of a real run in one file: a trace for ui.perfetto.dev that is read back as a `Recorded` step.

The file is a trace of all recorded steps ("traceEvents"), and behind it holds the step of median length as
`view.recorded` writes it ("version", "source", "devices", "spans"); viewers of traces ignore those keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reclra_compile.errors import Fault, Location, UserError
from reclra_compile.files import write_atomically
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.placement.times import unit_of
from reclra_compile.simulate.retarget import retargeted
from reclra_compile.simulate.trace import COMPUTE, write_events
from reclra_compile.view.recorded import Recorded, is_time

_ARROWS = {"P": "s", "R": "f"}


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was recorded: its number in the run, from 1, when it began in microseconds, and what ran when."""

    number: int
    begun_us: float
    recorded: Recorded


@dataclass(frozen=True, slots=True)
class Traced:
    """What a file says: the step of median length, the lengths of all, whose tasks they are, and the samples in each
    that one copy of the model sees.
    """

    recorded: Recorded
    steps_us: tuple[float, ...]
    batch: int
    tasks: str
    file: str

    @property
    def step_us(self) -> float:
        """The median step."""
        return self.recorded.end_us

    def fits(self, plan: Plan) -> Plan:
        """The plan for batches of the recorded size; raises UserError (V006) where it is another plan's trace."""
        if self.tasks and self.tasks != digest(plan):
            raise UserError(
                Fault("V006", f"the trace is of another plan than {plan.name} on {plan.model}", Location(self.file),
                      "draw the plan that was run: plan.txt of its run directory, or the same wiring and devices")
            )  # fmt: skip
        self.recorded.check(plan, self.file)
        timed = any(t.us for t in plan.tasks)
        if not timed or self.batch in (0, plan.batch) or plan.schedule.microbatches > self.batch:
            return plan
        resized = retargeted(plan, Machine(), self.batch)
        return resized if digest(resized) == digest(plan) else plan

    def against(self, plan: Plan) -> float | None:
        """Measured ÷ predicted time of a step of the plan it is of; None where the plan's devices have no rates."""
        predicted = predicted_us(self.fits(plan))
        return self.step_us / predicted if predicted else None


def predicted_us(plan: Plan) -> float | None:
    """The simulated step of a plan; None where no device has a rate, or tasks have no times."""
    if unit_of(plan.devices) != "us" or not any(t.us for t in plan.tasks):
        return None
    return plan.simulate().makespan_us


def digest(plan: Plan) -> str:
    """What the tasks of a plan are, and on which devices, in a few characters."""
    listed = "\n".join(f"{t.id} {t.device}" for t in plan.tasks)
    return hashlib.sha256(listed.encode("utf-8", "replace")).hexdigest()[:16]


def write_measured(path: str, plan: Plan, steps: Sequence[Taken], batch: int) -> float:
    """Write recorded steps (one at least) of `batch` samples; the median's microseconds. Raises UserError (F001)."""
    ordered = sorted(steps, key=lambda taken: taken.recorded.end_us)
    median = ordered[len(ordered) // 2].recorded
    facts = {"plan": plan.name, "model": plan.model, "fingerprint": plan.fingerprint, "tasks": digest(plan),
             "batch": batch, "microbatches": plan.schedule.microbatches, "step_us": median.end_us,
             "steps": [{"step": t.number, "us": t.recorded.end_us} for t in steps]}  # fmt: skip
    write_atomically(path, lambda file: write_events(file, measured_events(plan, steps), facts, str(median)))
    return median.end_us


def measured_events(plan: Plan, steps: Sequence[Taken]) -> Iterator[dict[str, Any]]:
    """Trace events: names of devices, each step as a whole, its tasks ("X"), and messages ("s", "f")."""
    devices = steps[0].recorded.devices
    for d, name in enumerate((*devices, "steps")):
        yield {"ph": "M", "name": "process_name", "pid": d, "args": {"name": f"{name} (measured)"}}
        yield {"ph": "M", "name": "process_sort_index", "pid": d, "args": {"sort_index": d}}
    sent = {t.writes[0]: k for k, t in enumerate(plan.tasks) if t.kind == "P"}
    most = 1 + max((s.microbatch for taken in steps for s in taken.recorded.spans), default=0)
    first = min(taken.begun_us for taken in steps)
    for k, taken in enumerate(steps):
        at = taken.begun_us - first
        yield {"ph": "X", "name": f"step {taken.number}", "cat": "step", "ts": at, "dur": taken.recorded.end_us,
               "pid": len(devices), "tid": COMPUTE}  # fmt: skip
        for s in taken.recorded.spans:
            task = plan.tasks[s.task]
            place = {"ts": at + s.start_us, "pid": s.device, "tid": COMPUTE}
            args = {"microbatch": s.microbatch, "wave": task.wave, "flops": task.flops, "bytes": task.bytes}
            yield {"ph": "X", "name": task.id, "cat": task.kind, **place, "dur": s.end_us - s.start_us, "args": args}
            arrow, value = _ARROWS.get(task.kind), (task.writes if task.kind == "P" else task.reads)[:1]
            if arrow and value and value[0] in sent:
                number = (k * len(plan.tasks) + sent[value[0]]) * most + s.microbatch
                end = {"bp": "e", "ts": at + s.end_us} if arrow == "f" else {}
                yield {"ph": arrow, "name": "message", "cat": "message", "id": number, **place, **end}


def read_trace(file: str) -> Traced:
    """What `write_measured` or `Recorded` wrote; raises UserError (V005) where it is nothing such."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
        raise UserError(
            Fault("V005", f"the trace cannot be read: {why}", Location(file), "record one with `train --trace FILE`")
        ) from None
    recorded = Recorded.read(text, file)
    recorded.check_measured(file)
    facts = json.loads(text).get("otherData")
    facts = facts if isinstance(facts, dict) else {}
    batch, tasks, steps = facts.get("batch"), facts.get("tasks"), facts.get("steps")
    lengths: list[Any] = [s.get("us") for s in steps if isinstance(s, dict)] if isinstance(steps, list) else []
    return Traced(
        recorded,
        tuple(float(us) for us in lengths if is_time(us)),
        batch if type(batch) is int and 0 < batch < 2**31 else 0,
        tasks if isinstance(tasks, str) else "",
        file,
    )
