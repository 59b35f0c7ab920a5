"""One rank of `pipeline.py`: plans are agreed on, contenders built, checked, and run in turn."""

from __future__ import annotations

import datetime
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import torch
import torch.distributed as dist
from pipeline_models import CASES, Case
from pipeline_predict import Link, Predictions, measured_link
from pipeline_rivals import BASE, Contender, alone, balanced, data_parallel, ours, part_seconds, pipelines

import reclra_compile as rc
from reclra_compile.ir import Plan

ENGINE = "mesh" in inspect.signature(rc.compile).parameters
WARM_UP = 2
WRONG = 1e-3  #: relative error of a gradient beyond which nothing is measured


@dataclass(frozen=True)
class Options:
    """What is measured: see `pipeline.py --help`."""

    only: tuple[str, ...]
    microbatches: tuple[int, ...]
    rounds: int
    pairs: int
    profile_rounds: int
    contenders: tuple[str, ...] = ()
    ranks: int = 2


@dataclass(frozen=True)
class Row:
    """One contender with one number of microbatches; ratios are to 1F1B in the same pair."""

    model: str
    title: str
    batch: int
    microbatches: int
    contender: str
    ms: float
    ratio: float
    low: float
    high: float
    predicted_ms: float | None
    predicted: float | None
    bound: float | None
    pairs: int
    gradient_error: float


def worker(rank: int, options: Options, port: int, out: str) -> None:
    """Join the others, run all cases, and let rank 0 write the rows to `out`."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(options.ranks), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    mesh: Any = None
    if ENGINE:
        from reclra_compile.distributed.mesh import connect

        mesh = connect(options.ranks)
    else:
        dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=300))
    try:
        link = measured_link()
        rows = [row for name in options.only for row in run(CASES[name], options, link, mesh)]
        if rank == 0:
            with open(out, "w", encoding="utf-8") as file:
                json.dump({"link": asdict(link), "rows": [asdict(r) for r in rows]}, file)
    finally:
        if mesh is not None:
            mesh.close()
        else:
            dist.destroy_process_group()


def agreed(make: Callable[[], str]) -> str:
    """The text that rank 0 makes, on all ranks."""
    try:
        text = make() if dist.get_rank() == 0 else ""
    except Exception:
        traceback.print_exc()  # the other ranks only say that this one is gone
        raise
    length = torch.tensor(len(text.encode()))
    dist.broadcast(length, 0)
    data = torch.zeros(int(length), dtype=torch.uint8)
    if text:
        data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    dist.broadcast(data, 0)
    return bytes(data.tolist()).decode()


def run(case: Case, options: Options, link: Link, mesh: Any) -> list[Row]:
    """All contenders of a model."""
    note(f"{case.title}: profiling and planning")

    def facts() -> str:
        parts = case.parts(case.build())
        seconds = part_seconds(parts, case.data()[0][: case.batch // max(options.microbatches)])
        cuts = {str(n): balanced(seconds, n, options.ranks) for n in (options.ranks, 2 * options.ranks)}
        guesses = Predictions(case, options.ranks, link, options.microbatches, options.profile_rounds)
        found: dict[str, Any] = {"cuts": cuts}
        for m in options.microbatches:
            planned = [guesses.planned(w, m) for w in case.wirings]
            pairs = [*zip(case.wirings, planned, strict=True)][:-1]
            planned += [made for w, p in pairs if (made := guesses.consecutive(w, p.plan, m))]
            planned.append(guesses.planned(case.wirings[0], m, True))
            found[str(m)] = {
                "plans": {p.name: str(p.plan) for p in planned},
                "times": {p.name: (p.predicted_us, p.bound) for p in planned} | guesses.rivals(m),
            }
        return json.dumps(found)

    made = json.loads(agreed(facts))
    cuts = {int(n): tuple(edges) for n, edges in made["cuts"].items()}
    rows = []
    for m in options.microbatches:
        plans = {n: Plan.parse(text) for n, text in made[str(m)]["plans"].items()}
        rows += measure(case, m, contenders(case, m, cuts, plans, mesh, options), made[str(m)]["times"], options)
    return rows


def contenders(
    case: Case, m: int, cuts: dict[int, tuple[int, ...]], plans: dict[str, Plan], mesh: Any, options: Options
) -> list[Contender]:
    """1F1B first; those that `options` names, where it names any."""
    found = [*pipelines(case, m, cuts)]
    for name, plan in plans.items():
        on_ranks = len(plan.devices) > 1
        if mesh is not None or not on_ranks:
            found.append(ours(case, name, plan, mesh if on_ranks else None))
    found += [data_parallel(case), alone(case)]
    asked = options.contenders
    return [c for c in found if c.name == BASE or not asked or any(a in c.name for a in asked)]


def measure(
    case: Case, m: int, found: Sequence[Contender], guesses: dict[str, tuple[float, float]], options: Options
) -> list[Row]:
    """Check the gradients, then rounds of pairs with 1F1B."""
    errors = torch.tensor([c.worst() for c in found])
    dist.all_reduce(errors, dist.ReduceOp.MAX)
    worst = dict(zip((c.name for c in found), errors.tolist(), strict=True))
    wrong = [f"{name} ({e:.1e})" for name, e in worst.items() if not e < WRONG]
    if wrong:
        raise SystemExit(f"{case.title}, M = {m}: gradients are not what they should be: {', '.join(wrong)}")
    base, rest = found[0], found[1:]
    for c in found:
        for _ in range(WARM_UP):
            seconds(c)
    pairs: dict[str, list[tuple[float, float]]] = {c.name: [] for c in rest}
    for k in range(options.rounds):
        note(f"{case.title}, M = {m}: round {k + 1} of {options.rounds}")
        shift = k % max(1, len(rest))
        for c in (*rest[shift:], *rest[:shift]):
            for p in range(options.pairs):
                first, second = (c, base) if (k + p) % 2 else (base, c)
                one, other = seconds(first), seconds(second)
                pairs[c.name].append((one, other) if first is c else (other, one))
    times = torch.tensor([pairs[c.name] for c in rest], dtype=torch.float64)
    dist.all_reduce(times, dist.ReduceOp.MAX)  # a step is over when the last rank is done
    all_base = times[..., 1].ravel().tolist()
    base_us = guesses[BASE]
    rows = []
    for k, c in enumerate(found):
        taken = times[k - 1, :, 0].tolist() if k else all_base
        ratios = [a / b for a, b in times[k - 1].tolist()] if k else [1.0] * len(all_base)
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        us, flops = guesses.get(c.name, (0.0, 0.0))
        rows.append(Row(
            case.name, case.title, case.batch, m, c.name, median(taken) * 1e3, median(ratios), low, high,
            us / 1e3 if us else None, us / base_us[0] if us else None, flops / base_us[1] if flops else None,
            len(taken), worst[c.name],
        ))  # fmt: skip
    return rows


def seconds(c: Contender) -> float:
    """What one step takes on this rank, all ranks having begun together."""
    dist.barrier()
    started = time.perf_counter()
    c.step()
    return time.perf_counter() - started


def note(text: str) -> None:
    """Progress, on rank 0."""
    if dist.get_rank() == 0:
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"\x1b[K{text}" if end == "\r" else text, end=end, file=sys.stderr, flush=True)
