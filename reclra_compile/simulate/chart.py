"""What a timeline shows: bars on the lanes of devices, of a plan's step or of a schedule of backprop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reclra_compile.ir import Task
from reclra_compile.placement.times import unit_of
from reclra_compile.simulate.events import Simulation
from reclra_compile.simulate.rivals import Rival

MOST_BARS = 4_000
MOST_LANES = 24
FORWARD, ERROR, UPDATE, SYNAPSES, BOTH, SETTLING, LINK = range(7)
KINDS = ("forward pass", "errors or input gradient", "weight gradient", "synapse update", "both gradients",
          "settling", "message on the link")  # fmt: skip
_GROUP = {"F": FORWARD, "L": ERROR, "D": ERROR, "T": ERROR, "B": ERROR, "U": UPDATE, "W": UPDATE, "V": SYNAPSES,
          "M": SYNAPSES, "S": SETTLING, "P": LINK}  # fmt: skip
_TASKS = 6  #: tasks that a bar names


@dataclass(frozen=True, slots=True)
class Bar:
    """Work on one lane from `start_us` to `end_us`; `kind` is an index of `KINDS`."""

    lane: int
    kind: int
    start_us: float
    end_us: float
    microbatch: int
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The lanes of devices and what they do up to `shown_us`; `note` says what is left out.

    `unit` is what times are in: "us", or "flops" where no device has a rate.
    """

    title: str
    lanes: tuple[str, ...]
    bars: tuple[Bar, ...]
    makespan_us: float
    shown_us: float
    note: str = ""
    unit: str = "us"


@dataclass(frozen=True, slots=True)
class _Row:
    """One task on one lane with the starts of all its microbatches."""

    lane: int
    kind: int
    name: str
    starts: Sequence[float]
    length_us: float


def plan_chart(step: Simulation, title: str = "") -> Chart:
    """The simulated step of a plan."""
    names = [d.name for d in step.plan.devices]
    shown, left_out = _some(len(names))
    lane = {d: k for k, d in enumerate(shown)}

    def rows() -> Iterator[_Row]:
        for i, t in enumerate(step.plan.tasks):
            length = step.layout.length_us[i]
            if t.device in lane and length:
                yield _Row(lane[t.device], _kind_of(t), t.id, step.starts(i).tolist(), length)

    made = _chart(title or step.plan.name, [names[d] for d in shown], list(rows()), step.makespan_us, left_out)
    return replace(made, unit=unit_of(step.plan.devices))


def rival_chart(rival: Rival, title: str) -> Chart:
    """A step of a schedule of backprop."""
    done, pattern = rival.run(), rival.pattern
    shown, left_out = _some(rival.devices)
    lane = {d: k for k, d in enumerate(shown)}
    whole = not any(n.startswith("W") for n in pattern.names)
    rows = [
        _Row(lane[r % rival.devices], LINK if r >= rival.devices else _kind(pattern.names[n], whole), pattern.names[n],
             done.start[n].tolist(), float(pattern.duration[n]))
        for n, r in enumerate(pattern.resource.tolist())
        if r % rival.devices in lane and pattern.duration[n]
    ]  # fmt: skip
    return _chart(title, [f"device {d}" for d in shown], rows, done.makespan_us, left_out)


def _kind_of(task: Task) -> int:
    both = task.kind == "U" and {v[0] for v in task.writes} == {"g", "d"}
    return BOTH if both else _GROUP[task.kind]


def _kind(name: str, whole: bool) -> int:
    return BOTH if whole and name[0] == "B" else _GROUP[name[0]]


def _some(devices: int) -> tuple[list[int], str]:
    """The devices that are shown: all, or the first and the last ones."""
    if devices <= MOST_LANES:
        return list(range(devices)), ""
    half = MOST_LANES // 2
    shown = [*range(half), *range(devices - half, devices)]
    return shown, f"devices 0–{half - 1} and {devices - half}–{devices - 1} of {devices}"


def _chart(title: str, lanes: list[str], rows: list[_Row], makespan_us: float, left_out: str) -> Chart:
    """Bars of the rows, as much of the step from its beginning as `MOST_BARS` show."""
    starts = np.sort(np.concatenate([np.array(r.starts) for r in rows])) if rows else np.zeros(0)
    until = makespan_us if len(starts) <= 4 * MOST_BARS else float(starts[4 * MOST_BARS])
    bars = _bars(rows, until)
    if len(bars) > MOST_BARS:
        until = sorted(b.start_us for b in bars)[MOST_BARS]
        bars = [b for b in bars if b.start_us < until]
    notes = [left_out] if left_out else []
    if until < makespan_us:
        notes.append(f"the first {until / makespan_us:.1%} of the step")
    return Chart(title, tuple(lanes), tuple(bars), makespan_us, until, "; ".join(notes))


def _bars(rows: list[_Row], until: float) -> list[Bar]:
    """One bar for tasks of a kind that follow each other without a pause for the same microbatch."""
    single = [
        (r.lane, r.kind == LINK, start, m, r)
        for r in rows for m, start in enumerate(r.starts) if start < until
    ]  # fmt: skip
    single.sort(key=lambda s: s[:4])
    bars: list[Bar] = []
    names: list[str] = []
    for lane, _, start, m, r in single:
        last = bars[-1] if bars else None
        joins = (
            last is not None and (last.lane, last.kind, last.microbatch) == (lane, r.kind, m) and r.kind != LINK
            and abs(last.end_us - start) <= 1e-9 * max(1.0, start)
        )  # fmt: skip
        if joins and last is not None:
            names.append(r.name)
            bars[-1] = Bar(lane, r.kind, last.start_us, start + r.length_us, m, _listed(names))
        else:
            names = [r.name]
            bars.append(Bar(lane, r.kind, start, start + r.length_us, m, r.name))
    return bars


def _listed(names: list[str]) -> str:
    more = f" … ({len(names)} tasks)" if len(names) > _TASKS else ""
    return ", ".join(names[:_TASKS]) + more
