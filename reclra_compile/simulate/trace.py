"""A simulated step as a trace for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from reclra_compile.files import write_atomically
from reclra_compile.simulate.events import Simulation

MOST_EVENTS = 400_000  #: viewers become slow beyond
COMPUTE, LINK = 0, 1


def write_trace(step: Simulation, path: str) -> int:
    """Write the trace as JSON; the number of microbatches in it, fewer than all where there is too much.

    A process for each device, with a thread that computes and one for its link; times in microseconds, arrows for
    messages. Raises UserError (F001).
    """
    many = _microbatches(step)
    facts = {"plan": step.plan.name, "step_us": step.makespan_us, "microbatches": many}
    write_atomically(path, lambda file: write_events(file, trace_events(step, many), facts))
    return many


def write_events(file: Any, events: Iterable[dict[str, Any]], facts: dict[str, Any], more: str = "{}") -> None:
    """Write a trace with facts about it; `more` is the text of a JSON object whose keys the trace has beside its own.

    The events are first: Perfetto ignores all that follows a key that it does not know.
    """
    file.write(b'{"traceEvents": [\n')
    for k, event in enumerate(events):
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        file.write((",\n" if k else "").encode() + text.encode("utf-8", "replace"))
    own = json.dumps({"displayTimeUnit": "ms", "otherData": facts}, ensure_ascii=False)[:-1]
    rest = more.strip()[1:].strip()
    file.write(f"\n], {own[1:]}{', ' if rest != '}' else ''}{rest}\n".encode("utf-8", "replace"))


def _microbatches(step: Simulation) -> int:
    """How many microbatches the trace has room for."""
    each = sum(t.kind != "X" for t in step.plan.tasks) * 2
    return max(1, min(step.plan.schedule.microbatches * step.batches, MOST_EVENTS // max(1, each)))


def trace_events(step: Simulation, microbatches: int) -> Iterator[dict[str, Any]]:
    """The events of the first `microbatches`: names of processes and threads, work ("X"), messages ("s", "f")."""
    for d, device in enumerate(step.plan.devices):
        yield {"ph": "M", "name": "process_name", "pid": d, "args": {"name": f"{device.name} ({device.kind})"}}
        yield {"ph": "M", "name": "process_sort_index", "pid": d, "args": {"sort_index": d}}
        for thread, name in ((COMPUTE, "compute"), (LINK, "link")):
            yield {"ph": "M", "name": "thread_name", "pid": d, "tid": thread, "args": {"name": name}}
    sent: dict[str, int] = {}
    for i, task in enumerate(step.plan.tasks):
        length = step.layout.length_us[i]
        if task.kind == "X":
            continue
        starts = step.starts(i)[:microbatches].tolist()
        arrow = {"P": "s", "R": "f"}.get(task.kind)
        if task.kind == "P":
            sent[task.writes[0]] = len(sent)
        thread = LINK if task.kind == "P" and length else COMPUTE
        for m, start in enumerate(starts):
            place = {"ts": start, "pid": task.device, "tid": thread}
            if length:
                args = {"microbatch": m, "wave": task.wave, "flops": task.flops, "bytes": task.bytes}
                yield {"ph": "X", "name": task.id, "cat": task.kind, **place, "dur": length, "args": args}
            if arrow and task.reads and (task.kind == "P" or task.reads[0] in sent):
                number = sent[task.writes[0] if task.kind == "P" else task.reads[0]] * microbatches + m
                end = {"bp": "e"} if arrow == "f" else {}
                yield {"ph": arrow, "name": "message", "cat": "message", "id": number, **place, **end}
