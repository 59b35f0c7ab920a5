"""How error pathways and backprop's schedules compare over devices, microbatches, batch, links and classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from reclra_compile.ir import Plan
from reclra_compile.placement.times import task_us, unit_of
from reclra_compile.simulate.costs import Time
from reclra_compile.simulate.load import Load, load_of
from reclra_compile.simulate.replicas import data_parallel, rounds_of
from reclra_compile.simulate.rivals import interleaved, pipeline
from reclra_compile.simulate.stages import Link
from reclra_compile.simulate.wired import depth_one, depth_two, grouped

OURS = {"depth1": depth_one, "depth2": depth_two, "groups": grouped}
NAMES = {
    "depth1": "depth 1", "depth2": "depth 2", "groups": "groups", "1f1b": "1F1B", "interleaved": "interleaved 1F1B",
    "zb_h1": "ZB-H1", "zb_h2": "ZB-H2", "data_parallel": "data parallel",
}  # fmt: skip
"""What is compared, and how it is called in pictures."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the sweep looks. `base` is the number of devices where devices are not what varies."""

    devices: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    microbatches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    links: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(14, 25))
    batches: tuple[int, ...] = (16, 64, 256, 1024, 4096, 16384, 65536)
    parts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    wide_devices: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256)
    wide_links: tuple[float, ...] = (0.0, 1e11, 1e10, 1e9)
    base: int = 64
    wide_microbatches: int = 32


@dataclass(frozen=True, slots=True)
class Point:
    """One schedule at one place of the grid. `speed` is that of one device running backprop, per device: 1 is as many
    times faster as there are devices. `link_bytes_per_s` 0 is a free link. `unit` is what times are in: "us", or
    "flops" where the device has no rate.
    """

    panel: str
    schedule: str
    devices: int
    microbatches: int
    batch: int
    link_bytes_per_s: float
    step_us: float
    row_us: float
    peak_bytes: float
    speed: float
    unit: str = "us"


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The number of outputs from which depth 2 is faster than depth 1; None where it never is up to `MOST_CLASSES`."""

    devices: int
    link_bytes_per_s: float
    classes: int | None


MOST_CLASSES = 2**20


def sizes(grid: Grid) -> int:
    """How many places of the grid are looked at: what progress counts."""
    return (len(grid.devices) + len(grid.microbatches) + len(grid.links) + len(grid.batches)
            + len(grid.wide_devices) * len(grid.wide_links))  # fmt: skip


def points(
    plan: Plan, grid: Grid | None = None, time: Time = task_us, tick: Callable[[], object] = lambda: None
) -> Iterator[Point]:
    """All points of a plan's sweep, of its model in equal parts on its first device's kind.

    Panels: "devices" with as many microbatches as devices, "microbatches", "links" and "batch" on `grid.base` devices.
    A microbatch is as large as the plan's, but in "batch", where each schedule gets the number that suits it best.
    """
    grid, unit = grid or Grid(), unit_of(plan.devices[:1])
    share = max(1, round(plan.batch / plan.schedule.microbatches))
    load = load_of(plan, share, 1, time=time)

    def replica(p: int, m: int, batch: int) -> Load:
        return load_of(plan, batch, p * rounds_of(p, m), time=time)

    def places() -> Iterator[tuple[str, int, int, Link]]:
        """Panel, devices, microbatches, link."""
        yield from (("devices", p, p, load.link) for p in grid.devices)
        yield from (("microbatches", grid.base, m, load.link) for m in grid.microbatches)
        yield from (("links", grid.base, grid.base, Link(rate, load.link.latency_us)) for rate in grid.links)

    for panel, p, m, link in places():
        one, own = replace(load, link=link), replace(replica(p, m, share * m), link=link)
        made = (_point(panel, name, one, own, p, m, share * m) for name in NAMES)
        yield from (replace(point, unit=unit) for point in made if point)
        tick()
    for batch in grid.batches:
        loads = {m: load_of(plan, batch, m, time=time) for m in grid.parts if m <= batch}
        alone = min(m * (one.forward_us + one.both_us) for m, one in loads.items())
        replicas = {m: replica(grid.base, m, batch) for m in loads}
        for name in NAMES:
            made = (_point("batch", name, one, replicas[m], grid.base, m, batch) for m, one in loads.items())
            best = min((p for p in made if p), key=lambda p: p.row_us, default=None)
            if best:
                yield replace(best, speed=alone / (best.row_us * grid.base), unit=unit)
        tick()


def break_evens(
    plan: Plan, grid: Grid | None = None, time: Time = task_us, tick: Callable[[], object] = lambda: None
) -> Iterator[BreakEven]:
    """From how many outputs on depth 2 beats depth 1, for devices and links."""
    grid = grid or Grid()
    share, m = max(1, round(plan.batch / plan.schedule.microbatches)), grid.wide_microbatches
    for rate in grid.wide_links:
        for p in grid.wide_devices:

            def wins(classes: int, p: int = p, rate: float = rate) -> bool:
                load = load_of(plan, share, 1, classes, time)
                load = replace(load, link=Link(rate, load.link.latency_us if rate else 0.0))
                return depth_two(load, p, m).step_us() < depth_one(load, p, m).step_us() * (1 - 1e-9)

            low, high = 1, MOST_CLASSES
            if not wins(high):
                yield BreakEven(p, rate, None)
            else:
                while high > low * 1.05 and high > low + 1:
                    middle = round((low * high) ** 0.5)
                    low, high = (low, middle) if wins(middle) else (middle, high)
                yield BreakEven(p, rate, 1 if wins(1) else high)
            tick()


def _point(
    panel: str, name: str, load: Load, replica: Load, devices: int, microbatches: int, batch: int
) -> Point | None:
    found = measured(name, load, devices, microbatches, replica)
    if found is None:
        return None
    step, row, peak = found
    alone = microbatches * (load.forward_us + load.both_us)
    return Point(panel, name, devices, microbatches, batch, load.link.bytes_per_s, step, row, peak,
                 alone / (row * devices) if row else 1.0)  # fmt: skip


def measured(
    name: str, load: Load, devices: int, microbatches: int, replica: Load | None = None
) -> tuple[float, float, float] | None:
    """A step alone, a step in a row (µs), and peak bytes of a schedule on equal parts; None where it does not exist.

    `replica` is the load of one of data parallel's parts of the batch, where it is smaller than a microbatch.
    """
    if name in OURS:
        wired = OURS[name](load, devices, microbatches)
        done = wired.run()
        return done.makespan_us, done.row_us, wired.peak_bytes()
    if name == "data_parallel":
        one, rounds = replica or load, rounds_of(devices, microbatches)
        tried = [data_parallel((one.stage(b),) * b, devices, rounds, load.link) for b in (1, 4, 16, 64)]
        best = min(tried, key=lambda r: r.step_us)
        return best.step_us, best.step_us, best.peak_bytes
    links = (load.link,) * devices
    if name == "interleaved":
        rival = interleaved((load.stage(2 * devices),) * (2 * devices), devices, microbatches, links)
    else:
        rival = pipeline(name, (load.stage(devices),) * devices, microbatches, links)
    if rival is None:
        return None
    done = rival.run()
    return done.makespan_us, done.row_us, max(rival.peak_bytes())
