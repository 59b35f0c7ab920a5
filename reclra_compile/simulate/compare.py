"""Backprop's schedules on the costs of a plan, beside the plan itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from reclra_compile.errors import Fault, UserError, nearest
from reclra_compile.ir import Device, Plan
from reclra_compile.placement.times import task_us
from reclra_compile.simulate.costs import Time, kind_of, links_of, stages
from reclra_compile.simulate.replicas import Replicas, data_parallel, rounds_of
from reclra_compile.simulate.rivals import SPLIT, WHOLE, Rival, interleaved, pipeline
from reclra_compile.simulate.stages import Link

TITLES = {
    "gpipe": "GPipe", "1f1b": "1F1B", "interleaved": "interleaved 1F1B", "zb_h1": "zero bubble ZB-H1",
    "zb_h2": "zero bubble ZB-H2", "data_parallel": "data parallel", "one_device": "one device",
}  # fmt: skip
"""Schedules of backprop and how they are called in reports."""
GROUPS = {"zero_bubble": ("zb_h1", "zb_h2"), "all": tuple(TITLES)}
MOST_PARTS = 4  #: parts of the model that interleaved 1F1B puts on a device


@dataclass(frozen=True, slots=True)
class Compared:
    """One schedule of backprop: a step alone, steps in a row, the largest memory of a device; or why it cannot be."""

    name: str
    step_us: float = 0.0
    row_us: float = 0.0
    peak_bytes: int = 0
    fits: bool = True
    utilisation: float = 0.0
    note: str = ""

    @property
    def possible(self) -> bool:
        """False where `note` says why the schedule does not exist here."""
        return self.step_us > 0


def names_of(text: str | Iterable[str]) -> tuple[str, ...]:
    """The schedules that a comma-separated list asks for, in the order of reports; raises UserError (S002)."""
    words = [w.strip().lower().replace("-", "_") for w in (text.split(",") if isinstance(text, str) else text)]
    valid = [*TITLES, *GROUPS]
    unknown = [w for w in words if w not in valid]
    if unknown:
        raise UserError(
            [Fault("S002", f"there is no schedule '{w}' to compare with", fix=nearest(w, valid)) for w in unknown]
        )
    asked = {n for w in words for n in GROUPS.get(w, (w,))}
    return tuple(n for n in TITLES if n in asked)


def compare(plan: Plan, names: Iterable[str], time: Time = task_us) -> tuple[Compared, ...]:
    """Each schedule in `names` on the plan's devices and microbatches, with regions priced by `time`."""
    memory = [d.memory_bytes for d in plan.devices]
    found = []
    for name in names:
        if name == "one_device":
            alone = stages(plan, 1, plan.devices[:1], time)
            rival = pipeline("1f1b", alone, plan.schedule.microbatches)
            found.append(replace(_compared(rival, memory), name=name))
        elif name == "data_parallel":
            found.append(_replicas(plan, memory, time))
        else:
            made = rival_of(plan, name, time)
            found.append(_compared(made, memory) if made else Compared(name, note=_no_rounds(plan)))
    return tuple(found)


def rival_of(plan: Plan, name: str, time: Time = task_us) -> Rival | None:
    """The pipeline called `name` on the plan's devices; None where it is none, or its rounds do not come out even.

    A device has a stage, or no work where there are fewer regions than devices.
    """
    devices = plan.devices[: len(plan.regions)]
    many, links = plan.schedule.microbatches, links_of(devices)
    if name == "interleaved":
        return _interleaved(plan, devices, links, time)
    if name not in SPLIT | WHOLE:
        return None
    return pipeline(name, stages(plan, len(devices), devices, time), many, links)


def _compared(rival: Rival, memory: Sequence[int]) -> Compared:
    peaks, done = rival.peak_bytes(), rival.run()
    step, row = done.makespan_us, done.row_us
    work = float(rival.pattern.work()[: rival.devices].sum()) * rival.microbatches
    fits = all(not m or p <= m for p, m in zip(peaks, memory, strict=False))
    return Compared(rival.name, step, row, round(max(peaks)), fits, work / (row * rival.devices) if row else 1.0)


def _interleaved(plan: Plan, devices: Sequence[Device], links: Sequence[Link], time: Time) -> Rival | None:
    """The fastest of 2 to `MOST_PARTS` parts for each device."""
    count, many = len(devices), plan.schedule.microbatches
    parts = [v for v in range(2, MOST_PARTS + 1) if v * count <= len(plan.regions)]
    tried = [interleaved(stages(plan, v * count, devices, time), count, many, links) for v in parts]
    return min((r for r in tried if r is not None), key=lambda r: r.run().row_us, default=None)


def _no_rounds(plan: Plan) -> str:
    if len(plan.regions) < 2 * len(plan.devices):
        return f"{len(plan.regions)} regions are fewer than two for each of {len(plan.devices)} devices"
    return f"{plan.schedule.microbatches} microbatches cannot be cut into rounds of {len(plan.devices)} or a few more"


def _replicas(plan: Plan, memory: Sequence[int], time: Time) -> Compared:
    """The slowest device's step; gradients are summed in as many buckets as are fastest."""
    count, link = len(plan.devices), links_of(plan.devices)[0]
    rounds = rounds_of(count, plan.schedule.microbatches)
    buckets = sorted({min(len(plan.regions), 2**k) for k in range(12)})
    slowest = max(
        (
            min(
                (data_parallel(stages(plan, b, (d,), time, count * rounds, count), count, rounds, link)
                 for b in buckets),
                key=_step,
            )
            for d in dict.fromkeys(kind_of(d) for d in plan.devices)
        ),
        key=_step,
    )
    fits = all(not m or slowest.peak_bytes <= m for m in memory)
    return Compared("data_parallel", slowest.step_us, slowest.step_us, round(slowest.peak_bytes), fits,
                    slowest.busy_us / slowest.step_us if slowest.step_us else 1.0)  # fmt: skip


def _step(r: Replicas) -> float:
    return r.step_us
