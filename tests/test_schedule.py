"""The order of tasks: deterministic, frees each value once, and no legal order changes a gradient."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from models import MLP, build
from torch import Tensor

import reclra_compile as rc
from reclra_compile.compiler import plan_for
from reclra_compile.ir import Plan, Task
from reclra_compile.runtime.program import Program
from reclra_compile.schedule.lower import lower, whole_regions
from reclra_compile.schedule.order import KEPT, dependencies, frees, order
from reclra_compile.schedule.values import with_traffic
from reclra_compile.spec.load import shipped
from reclra_compile.verify import verify

PAIRS = [
    ("mlp", "depth2"), ("mlp", "backprop"), ("mlp", "depth1_paper"), ("residual", "depth2"), ("residual", "backprop"),
    ("residual", "kolen_pollack"), ("branching", "depth2_gap2"), ("batchnorm", "lra_e"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def work(plan: Plan) -> tuple[Task, ...]:
    """The tasks that compute something."""
    return tuple(t for t in plan.tasks if t.kind != "X")


def needed(plan: Plan) -> tuple[Task, ...]:
    """The tasks before they are ordered."""
    tasks = lower(plan.regions, plan.targets, plan.pathways, plan.waves, plan.output)
    return with_traffic(tasks, plan.regions, plan.targets, plan.pathways)


# Order


@pytest.mark.parametrize(("model", "wiring"), PAIRS)
def test_the_order_does_not_depend_on_the_order_given(model: str, wiring: str) -> None:
    plan = plan_for(*build(model), wiring)
    rng = random.Random(0)
    forward = [t for t in needed(plan) if t.kind == "F"]  # the model's own order counts, as random numbers follow it
    for _ in range(20):
        shuffled = [t for t in needed(plan) if t.kind != "F"]
        rng.shuffle(shuffled)
        assert frees(order((*forward, *shuffled))) == plan.tasks


def test_forward_runs_in_the_models_order() -> None:
    plan = plan_for(*build("branching"), "depth1")
    assert [t.subject for t in plan.tasks if t.kind == "F"] == [r.name for r in plan.regions]


@pytest.mark.parametrize("wiring", list(shipped()))
def test_waves_come_one_after_the_other(wiring: str) -> None:
    tasks = [t for t in plan_for(*build("mlp"), wiring).tasks if t.kind in "TU"]
    assert [t.wave for t in tasks] == sorted(t.wave for t in tasks)


def test_a_regions_update_follows_its_error_neurons() -> None:
    tasks = work(plan_for(*build("mlp"), "depth2"))
    for before, after in pairwise(tasks):
        if before.kind == "T":
            assert after.id == f"U {before.subject}"


def test_every_task_comes_after_what_it_reads() -> None:
    for model, wiring in PAIRS:
        tasks = work(plan_for(*build(model), wiring))
        assert all(a < b for a, b in dependencies(tasks).edges)


# Frees


@pytest.mark.parametrize(("model", "wiring"), PAIRS)
def test_each_value_is_freed_once_right_after_its_last_use(model: str, wiring: str) -> None:
    plan = plan_for(*build(model), wiring)
    last: dict[str, str] = {}
    for t in work(plan):
        last |= dict.fromkeys((*t.reads, *t.writes), t.id)
    freed = Counter(v for t in plan.tasks if t.kind == "X" for v in t.reads)
    assert freed == Counter(v for v in last if not v.startswith(KEPT))
    for before, t in pairwise(plan.tasks):
        if t.kind == "X":
            assert t.subject == before.id.replace(" ", ":")
            assert {last[v] for v in t.reads} == {before.id}
            assert (t.wave, t.device) == (before.wave, before.device)


def alive(plan: Plan) -> list[int]:
    """How many values are alive after each task, as the plan says."""
    values = {name for name, _, _ in plan.inputs} | {"y"}
    counts = []
    for t in plan.tasks:
        values |= set(t.writes)
        if t.kind == "X":
            values -= set(t.reads)
        counts.append(len({v for v in values if not v.startswith("g.")}))
    return counts


@pytest.mark.parametrize(("model", "wiring"), PAIRS)
def test_no_more_values_live_than_the_plan_says(model: str, wiring: str) -> None:
    module, x = build(model)
    program = rc.compile(module, x, wiring)
    seen: list[int] = []

    def watched(run: Any) -> Any:
        def step(slots: list[Any]) -> None:
            run(slots)
            seen.append(sum(v is not None for v in slots[1:]))

        return step

    program._steps = [watched(run) for run in program._steps]
    program.step(x, torch.tensor([0, 1, 2, 0]))
    said = alive(program.plan)
    assert len(seen) == len(said)
    assert all(a <= b for a, b in zip(seen, said, strict=True))
    assert seen[-1] == 1  # the loss


def test_output_fed_regions_are_freed_one_by_one() -> None:
    """In one wave of any length only the region at work holds more than its forward pass left behind."""
    deep = alive(plan_for(MLP(hidden=40), torch.zeros(4, 6), "depth1"))
    forward = 2 * 41 + 3  # z and h of each region; input, labels, loss
    assert max(deep) <= forward + 3


# Any legal order


def legal(tasks: tuple[Task, ...], rng: random.Random) -> tuple[Task, ...]:
    """A random topological order of the tasks."""
    graph = dependencies(tasks)
    waiting = dict(graph.in_degree())
    ready = [i for i, n in waiting.items() if not n]
    done: list[int] = []
    while ready:
        i = ready.pop(rng.randrange(len(ready)))
        done.append(i)
        for j in graph.successors(i):
            waiting[j] -= 1
            if not waiting[j]:
                ready.append(j)
    return tuple(tasks[i] for i in done)


def gradients(plan: Plan, model: str) -> dict[str, Tensor]:
    """Gradients of parameters and synapses after one step of a freshly built model."""
    module, x = build(model)
    program: Program = rc.compile(module, x, plan=plan)
    loss = program.step(x, torch.tensor([0, 1, 2, 0]))
    named = [*program.model.named_parameters(), *program.synapses.named_parameters(prefix="synapses")]
    return {"loss": loss, **{n: p.grad for n, p in named if p.grad is not None}}


@functools.cache
def default(model: str, wiring: str) -> tuple[Plan, dict[str, Tensor]]:
    """The plan in its own order, and the gradients it gives."""
    plan = plan_for(*build(model), wiring)
    return plan, gradients(plan, model)


@pytest.mark.parametrize(("model", "wiring"), PAIRS)
@settings(deadline=None, max_examples=5, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_any_legal_order_gives_the_same_gradients(model: str, wiring: str, seed: int) -> None:
    plan, expected = default(model, wiring)
    other = verify(replace(plan, tasks=frees(legal(work(plan), random.Random(seed)))))
    found = gradients(other, model)
    assert expected.keys() == found.keys()
    assert [n for n, g in expected.items() if not torch.equal(g, found[n])] == []


def test_legal_orders_differ() -> None:
    plan = plan_for(*build("mlp"), "depth2")
    assert len({legal(work(plan), random.Random(seed)) for seed in range(10)}) == 10
    assert nx.is_directed_acyclic_graph(dependencies(work(plan)))


# Size


def test_tasks_grow_linearly_with_depth() -> None:
    counts = {}
    for hidden in (50, 100, 200):
        plan = plan_for(MLP(hidden=hidden), torch.zeros(4, 6), "depth2")
        kinds = Counter(t.kind for t in plan.tasks)
        layers = hidden + 1
        assert (kinds["F"], kinds["T"], kinds["U"], kinds["L"]) == (layers, layers, layers, 1)
        assert kinds["D"] == kinds["V"] == hidden
        counts[hidden] = len(plan.tasks)
    assert counts[200] < 10 * 201
    assert counts[200] - counts[100] == 2 * (counts[100] - counts[50])


# Regions in one piece


def test_whole_regions_are_those_that_only_edges_touch() -> None:
    backprop = plan_for(*build("residual"), "backprop")
    assert whole_regions(backprop.targets, backprop.pathways) == {r.name for r in backprop.regions}
    depth2 = plan_for(*build("residual"), "depth2")
    assert whole_regions(depth2.targets, depth2.pathways) == frozenset()


def test_rescaled_regions_read_the_output_whatever_the_order_of_targets() -> None:
    wiring = {
        "version": 1,
        "target": {"rule": "gradient"},
        "pathways": [{"from": "consumers", "to": "all", "kernel": "adjoint"}],
        "overrides": [{"regions": "fc1", "target": {"rule": "lra", "rescale": True}}],
    }
    plan = plan_for(*build("mlp"), wiring)
    assert "e.out" in next(t for t in plan.tasks if t.id == "T fc1").reads
    assert whole_regions(plan.targets, plan.pathways) == {"fc2", "fc3", "fc4", "fc5"}
    assert whole_regions(plan.targets[::-1], plan.pathways) == {"fc2", "fc3", "fc4", "fc5"}
