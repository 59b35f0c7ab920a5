"""How long the simulation of a large plan takes, and how much memory: by default 1,024 devices × 4,096 microbatches.

    python benchmarks/simulate_scale.py [--devices P] [--microbatches M]

Each device has a stage of the same cost with errors from the output (depth 1), and slow links: two tasks' nodes and
one for messages per device and microbatch. The step is compared with 2M + P − 1 where links are free.
"""

from __future__ import annotations

import argparse
import math
import resource
import time

from reclra_compile.ir import Device, Plan, Schedule, Task
from reclra_compile.simulate.events import simulate


def chain(devices: int, microbatches: int, bytes_: int, device: Device) -> Plan:
    """A region on each device, F = U = 1 µs; values of `bytes_` go forward, the output's error to all devices."""
    tasks: list[Task] = []
    for d in range(devices):
        if d:
            tasks.append(Task("R", f"z{d - 1}|{d}", (f"z{d - 1}>{d}",), (f"z{d - 1}|{d}",), device=d))
        tasks.append(Task("F", f"r{d}", (f"z{d - 1}|{d}",) if d else (), (f"z{d}",), device=d, us=1.0))
        if d < devices - 1:
            tasks.append(Task("P", f"z{d}>{d + 1}", (f"z{d}",), (f"z{d}>{d + 1}",), device=d, bytes=bytes_))
    last = devices - 1
    tasks.append(Task("T", f"r{last}", (f"z{last}",), ("e",), 0, last))
    tasks += [Task("P", f"e>{d}", ("e",), (f"e>{d}",), 0, last, bytes=bytes_ // devices) for d in range(last)]
    tasks.append(Task("U", f"r{last}", ("e",), (f"g{last}",), 0, last, us=1.0))
    for d in reversed(range(last)):
        turn = min(microbatches - 1, math.ceil((last - d) / 2))
        tasks.append(Task("R", f"e|{d}", (f"e>{d}",), (f"e|{d}",), 1, d, turn=turn))
        tasks.append(Task("U", f"r{d}", (f"e|{d}",), (f"g{d}",), 1, d, us=1.0, turn=turn))
    return Plan("depth1", "chain", "", microbatches, (), "", (), (), (), (), tuple(tasks), (device,) * devices,
                schedule=Schedule(microbatches))  # fmt: skip


def main() -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1024)
    parser.add_argument("--microbatches", type=int, default=4096)
    given = parser.parse_args()
    p, m = given.devices, given.microbatches
    print(f"{p} devices × {m} microbatches")
    slow = Device(link_bytes_per_s=1e9, link_latency_us=0.25)
    for name, device in (("free links", Device()), ("slow links", slow)):
        begin = time.perf_counter()
        step = simulate(chain(p, m, 500 * m, device))
        seconds = time.perf_counter() - begin
        events = step.run.start.size
        print(f"{name}: {events:,} events, step {step.makespan_us:,.1f} µs (2M + P − 1 = {2 * m + p - 1:,}), "
              f"devices busy {step.utilisation:.1%}; {seconds:.1f} s")  # fmt: skip
        del step
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
