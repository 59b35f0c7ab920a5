"""Time and quality of the search for relays: 200 regions on 64 devices, and mid-size cases against exact search.

    python benchmarks/auto.py                 CPU seconds of a whole choice, from costs to error graph
    python benchmarks/auto.py --gap 40        also the gap of the local search on 40 random cases of 10 to 12 regions
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from reclra_compile.auto import relays
from reclra_compile.auto.ask import Ask
from reclra_compile.auto.choose import choices
from reclra_compile.auto.cost import Kernels, Rates, Rung, problem, rates_of
from reclra_compile.auto.relays import search
from reclra_compile.ir import Region
from reclra_compile.placement.devices import parse_devices
from reclra_compile.spec.graph import RegionGraph

BATCH = 64


def region(k: int, size: int, reads: tuple[str, ...]) -> Region:
    """A fully connected region of `size` neurons."""
    z = 4 * size * BATCH
    return Region(
        name=f"r{k}", op="Linear", phi="tanh", inputs=reads, outputs=(f"z.r{k}",), shape=(size,),
        parameters=(f"r{k}.weight",), parameter_count=size * size, weight_count=size * size,
        forward_flops=2 * BATCH * size * size, z_bytes=z, output_bytes=(z,),
    )  # fmt: skip


def model(seed: int, count: int, outputs: int = 1000) -> RegionGraph:
    """A chain with a skip here and there, of random widths; the last region has `outputs` neurons."""
    rng = random.Random(seed)
    widths = [rng.choice((64, 128, 256, 512, 1024)) for _ in range(count - 1)] + [outputs]
    made = []
    for k, size in enumerate(widths):
        skip = [f"z.r{rng.randrange(k)}"] if k > 2 and rng.random() < 0.2 else []
        made.append(region(k, size, (f"z.r{k - 1}" if k else "x0", *skip)))
    return RegionGraph(tuple(made), f"z.r{count - 1}")


def timed(profile: str, memory: int | None) -> None:
    """One choice among 200 regions for 64 devices: depths 1 and 2, and depth 3."""
    kernels = Kernels(model(0, 200), BATCH, 16_000_000, memory=memory)
    rates = rates_of(parse_devices(f"{profile}:64"))
    for label, asks in (("depth 1 or 2", [Ask(1), Ask(2)]), ("depth 3", [Ask(3)]), ("20 relays", [Ask(2, count=20)])):
        start = time.process_time()
        found = [c for c in choices(kernels, rates, 8, asks) if c is not None]
        seconds = time.process_time() - start
        best = min(found, key=lambda c: (not c.found.fits, c.us))
        size = "" if memory is None else f", {memory / 2**20:.0f} MiB"
        relays_found, work = len(best.found.relays(best.problem)), best.found.effort.evaluations
        print(
            f"200 regions, 64 × {profile}{size}, {label}: {seconds:.2f} s, {work} error graphs, "
            f"{best.waves} waves, {relays_found} relays, {best.us:.4g} µs"
        )


def gaps(cases: int) -> None:
    """How far the local search is from the best error graph where both can be had."""
    found: list[float] = []
    skipped = 0
    for seed in range(cases):
        rng = random.Random(seed)
        graph = model(seed, rng.randint(11, 13), rng.choice((10, 100, 1000)))
        devices = rng.randint(2, 8)
        p = problem(Kernels(graph, BATCH, 16_000_000), rng.choice((Rates(devices), _cpu(devices))), Rung(8))
        ask = rng.choice((Ask(2), Ask(2), Ask(2, count=rng.randint(1, 4)), Ask(3)))
        relays.FEWISH = relays.FEW  # local search only
        quick = search(p, ask)
        relays.FEWISH, relays.BRANCHES = 99, 1_000_000
        exact = search(p, ask)
        if quick is None or exact is None or not exact.exact:
            skipped += 1
            continue
        found.append(quick.score.makespan / exact.score.makespan - 1)
    print(
        f"local search against exact search, {len(found)} cases of 10 to 12 regions ({skipped} skipped): "
        f"the best makespan in {sum(g == 0 for g in found)}, mean gap {statistics.mean(found):.2%}, "
        f"largest {max(found):.2%}"
    )


def _cpu(count: int) -> Rates:
    return rates_of(parse_devices(f"cpu:{count}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gap", type=int, default=0, metavar="CASES")
    asked = parser.parse_args()
    for kind in ("cpu", "any"):
        timed(kind, None)
    timed("cpu", 64 * 2**20)
    timed("cpu", 4 * 2**20)
    if asked.gap:
        gaps(asked.gap)
