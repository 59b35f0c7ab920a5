"""rec-LRA on two processes beside PyTorch's pipeline schedules, its data parallelism, and one process.

    python benchmarks/pipeline.py [--only mlp vit resnet] [--microbatches 2 4 8] [--rounds 15] [--pairs 1] [--json]

Two processes of one thread each (gloo), the same model, weights, batch and microbatches for all. A step is zero_grad,
forward and backward pass, or `program.step`; no optimizer. All ranks meet before each step; it takes until the last
one is done. In a round each contender makes a step beside one of 1F1B, in turns before and behind it; ratios are
medians over all pairs, with quartiles. DDP has half the batch on each process, in one part; "one process" has the whole
batch in one part, while the other process waits.

Before anything is timed, each contender's gradients are compared with those of autograd (rec-LRA's with the same plan
run in one process). "predicted" is the simulator's step by times of tasks and of the link that are measured first,
"bound" the same in FLOPs with links that take no time, both ÷ those of 1F1B. "halves" has one stretch of the model on
each process, where the planner has chosen something else.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.multiprocessing as mp
from pipeline_models import CASES
from pipeline_rivals import ALONE, DATA_PARALLEL, PIPELINES
from pipeline_worker import ENGINE, Options, Row, worker

OURS = "rec-LRA"


def measured(options: Options) -> dict[str, Any]:
    """The rows of all cases, and the link, from processes that are started here."""
    store = torch.distributed.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=300)
    )
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "rows.json")
        mp.start_processes(worker, (options, store.port, out), options.ranks, start_method="spawn")
        with open(out, encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    found["rows"] = [Row(**r) for r in found["rows"]]
    return found


def table(rows: Sequence[Row]) -> None:
    """One block for each model and number of microbatches."""
    seen = None
    for r in rows:
        if (r.model, r.microbatches) != seen:
            seen = r.model, r.microbatches
            print(f"\n{r.title}, batch {r.batch}, M = {r.microbatches}")
            print(f"  {'':<28}{'step':>10}{'÷ 1F1B':>9}{'quartiles':>14}{'predicted':>13}{'÷ 1F1B':>8}{'bound':>8}")
        ratios = f"{r.ratio:>9.3f}{r.low:>8.3f}–{r.high:.3f}"
        guess = f"{r.predicted_ms:>10.1f} ms{r.predicted:>8.3f}" if r.predicted_ms else f"{'–':>13}{'–':>8}"
        bound = f"{r.bound:>8.3f}" if r.bound else f"{'–':>8}"
        print(f"  {r.contender:<28}{r.ms:>7.1f} ms{ratios}{guess}{bound}")


def sentences(rows: Sequence[Row]) -> list[str]:
    """What the rows come to, in words: who is fastest, where data parallel is, and what was to be reached."""
    found = []
    for model, m in dict.fromkeys((r.model, r.microbatches) for r in rows):
        here = {r.contender: r for r in rows if (r.model, r.microbatches) == (model, m)}
        case, where = CASES[model], f"{CASES[model].title}, M = {m}"
        ours = [r for n, r in here.items() if n.startswith(OURS) and "(one process)" not in n]
        pipes = [here[n] for n in PIPELINES if n in here]
        fastest = min(here.values(), key=lambda r: r.ms)
        found.append(f"{where}: the fastest is {fastest.contender}, {fastest.ms:.1f} ms.")
        pipe = min(pipes, key=lambda r: r.ratio)
        for r in ours:
            ahead = r.ratio < pipe.ratio
            found.append(f"  {r.contender} is {'ahead of' if ahead else 'behind'} the best schedule of PyTorch "
                         f"({pipe.contender}): {r.ratio:.2f} and {pipe.ratio:.2f} of 1F1B.")  # fmt: skip
        ddp, single = here.get(DATA_PARALLEL), here.get(ALONE)
        if ddp and ours:
            behind = [r.contender for r in ours if ddp.ratio < r.ratio]
            found.append(f"  DDP ({ddp.ratio:.2f}) is ahead of {', '.join(behind)}." if behind
                         else f"  All of these are ahead of DDP ({ddp.ratio:.2f}).")  # fmt: skip
        if single:
            times = [f"{r.contender} {single.ratio / r.ratio:.2f}" for r in (*ours, *([ddp] if ddp else []))]
            found.append(f"  Times as fast as backprop in one process: {', '.join(times)}.")
        wanted = dict(case.targets).get(m)
        for r in [r for r in ours if wanted and r.contender.startswith(f"{OURS} depth1")]:
            found.append(f"  To reach: at most {wanted:.2f} of 1F1B; {r.contender} "
                         f"{'reaches' if r.ratio <= wanted else 'misses'} it with {r.ratio:.3f}.")  # fmt: skip
    return found


def parsed(arguments: Sequence[str] | None = None) -> tuple[Options, bool]:
    """The options, and whether JSON is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=["mlp", "vit", "resnet"], help="models")
    parser.add_argument("--microbatches", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--contenders", nargs="+", default=[], help="those whose names contain one of these words")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pairs", type=int, default=1, help="pairs of each contender in a round")
    parser.add_argument("--profile-rounds", type=int, default=7, help="rounds in which tasks are timed")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    for name in given.only:
        for m in given.microbatches:
            if m < 2 or CASES[name].batch % m:
                parser.error(f"a batch of {CASES[name].batch} ({name}) is not cut into {m} equal parts, two or more")
    options = Options(tuple(given.only), tuple(given.microbatches), given.rounds, given.pairs, given.profile_rounds,
                      tuple(given.contenders))  # fmt: skip
    return options, given.json


def main() -> None:
    """Parse, run, print."""
    options, as_json = parsed()
    found = measured(options)
    rows, link = found["rows"], found["link"]
    if as_json:
        found = {"torch": torch.__version__, "link": link, "rows": [asdict(r) for r in rows]}
        print(json.dumps(found, indent=2))
        return
    print(f"torch {torch.__version__}, {options.ranks} processes with 1 thread each (gloo), {options.rounds} rounds")
    print(f"the link: {link['bytes_per_s'] / 1e9:.2f} GB/s, {link['latency_us']:.0f} µs")
    if not ENGINE:
        print("this version has no engine for several processes: rec-LRA is measured in one alone")
    table(rows)
    print()
    print("\n".join(sentences(rows)))


if __name__ == "__main__":
    main()
