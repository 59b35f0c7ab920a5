"""A sound plan with one thing changed is refused, with a message that names the thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from models import MLP, build

import reclra_compile as rc
from reclra_compile.compiler import plan_for
from reclra_compile.errors import PlanError
from reclra_compile.ir import Device, Pathway, Placement, Plan, Region, Target, Task
from reclra_compile.placement.memory import peaks
from reclra_compile.schedule.order import frees
from reclra_compile.spec.load import shipped
from reclra_compile.verify import CODES, verify

T = TypeVar("T", Region, Target, Pathway, Task)
Mutation = Callable[[Plan], Plan]
FIELDS: dict[type, tuple[str, str]] = {
    Region: ("regions", "name"),
    Target: ("targets", "region"),
    Pathway: ("pathways", "name"),
    Task: ("tasks", "id"),
}


@pytest.fixture(scope="module")
def sound() -> Plan:
    return plan_for(*build("mlp"), "depth2")


@pytest.fixture(scope="module")
def edges() -> Plan:
    return plan_for(*build("residual"), "feedback_alignment")


def edit(plan: Plan, kind: type, name: str, **changes: Any) -> Plan:
    """The plan with some fields of one record changed."""
    field, key = FIELDS[kind]
    records = tuple(replace(r, **changes) if getattr(r, key) == name else r for r in getattr(plan, field))
    assert records != getattr(plan, field)
    return replace(plan, **{field: records})


def without(plan: Plan, kind: type, name: str) -> Plan:
    """The plan without one record."""
    field, key = FIELDS[kind]
    records = tuple(r for r in getattr(plan, field) if getattr(r, key) != name)
    assert len(records) == len(getattr(plan, field)) - 1
    return replace(plan, **{field: records})


def twice(plan: Plan, kind: type, name: str) -> Plan:
    """The plan with one record repeated at the end."""
    field, key = FIELDS[kind]
    records = getattr(plan, field)
    return replace(plan, **{field: (*records, next(r for r in records if getattr(r, key) == name))})


def task(plan: Plan, name: str) -> Task:
    return next(t for t in plan.tasks if t.id == name)


def swapped(plan: Plan, first: str, second: str) -> Plan:
    """The plan with two tasks in each other's place."""
    a, b = task(plan, first), task(plan, second)
    return replace(plan, tasks=tuple({first: b, second: a}.get(t.id, t) for t in plan.tasks))


def moved_to_the_end(plan: Plan, name: str) -> Plan:
    return replace(plan, tasks=(*(t for t in plan.tasks if t.id != name), task(plan, name)))


def inserted_first(plan: Plan, new: Task) -> Plan:
    return replace(plan, tasks=(new, *plan.tasks))


NEEDED = peaks(plan_for(*build("mlp"), "depth2"))[0]  #: bytes that the sound plan takes on its device

#: name → (the change, the code and the message of one fault that follows)
MUTATIONS: dict[str, tuple[Mutation, str, str]] = {
    # names
    "region twice": (lambda p: twice(p, Region, "fc1"), "P101", "region 'fc1' appears 2 times"),
    "target twice": (lambda p: twice(p, Target, "fc1"), "P101", "target 'fc1' appears 2 times"),
    "pathway twice": (lambda p: twice(p, Pathway, "out->fc3"), "P101", "pathway 'out->fc3' appears 2 times"),
    "value made twice": (
        lambda p: edit(p, Region, "fc2", outputs=("z.fc1",)), "P101", "value 'z.fc1' appears 2 times"),
    "input twice": (lambda p: replace(p, inputs=p.inputs * 2), "P101", "input 'x0' appears 2 times"),
    "region in two waves": (
        lambda p: replace(p, waves=(*p.waves, ("fc1",))), "P101", "region in the waves 'fc1' appears 2 times"),
    # references
    "unknown value": (
        lambda p: edit(p, Region, "fc2", inputs=("z.fc9",)), "P102", "region 'fc2' reads unknown value 'z.fc9'"),
    "no output": (lambda p: edit(p, Region, "fc2", outputs=()), "P102", "region 'fc2' has no output"),
    "unknown output": (lambda p: replace(p, output="z.end"), "P102", "the plan's output 'z.end' is made by no region"),
    "unknown target": (lambda p: edit(p, Target, "fc1", region="fc9"), "P102", "target of unknown region 'fc9'"),
    "unknown pathway end": (
        lambda p: edit(p, Pathway, "out->fc3", target="fc9"), "P102", "pathway 'out->fc3' names unknown region 'fc9'"),
    # memory
    "memory misstated": (
        lambda p: replace(p, placement=replace(p.placement, peak_bytes=(1,))), "P108",
        "device 'device0' is stated to need 1 bytes, but its tasks need " + str(NEEDED)),
    "memory of two devices": (
        lambda p: replace(p, placement=replace(p.placement, peak_bytes=(NEEDED, 0))), "P108",
        "the placement states the memory of 2 devices of 1"),
    "too much memory": (
        lambda p: replace(p, placement=replace(p.placement, peak_bytes=(NEEDED,)),
                          devices=(Device(memory_bytes=NEEDED - 1),)), "P108",
        f"device 'device0' needs {NEEDED} bytes, but has {NEEDED - 1}"),
    # devices
    "region unplaced": (
        lambda p: replace(p, placement=Placement(regions=p.placement.regions[1:])), "P103",
        "region 'fc1' is placed 0 times"),
    "region placed twice": (
        lambda p: replace(p, placement=Placement(regions=(*p.placement.regions, ("fc1", 0)))), "P103",
        "region 'fc1' is placed 2 times"),
    "unknown region placed": (
        lambda p: replace(p, placement=Placement(regions=(*p.placement.regions, ("fc9", 0)))), "P103",
        "placement of unknown region 'fc9'"),
    "no such device": (
        lambda p: replace(p, placement=Placement(regions=(("fc1", 1), *p.placement.regions[1:]))), "P103",
        "region 'fc1' is on device 1 of 1"),
    "task on no device": (lambda p: edit(p, Task, "U fc1", device=-1), "P103", "task 'U fc1' is on device -1 of 1"),
    # rules
    "unknown rule": (lambda p: edit(p, Target, "fc1", rule="magic"), "P104", "region 'fc1' has unknown rule 'magic'"),
    "beta": (
        lambda p: edit(p, Target, "fc1", beta=0.0), "P104", "region 'fc1' has β=0, κ=1, p=2, q=2 out of range"),
    "kappa": (
        lambda p: edit(p, Target, "fc1", kappa=float("nan")), "P104",
        "region 'fc1' has β=0.01, κ=nan, p=2, q=2 out of range"),
    "norm": (lambda p: edit(p, Target, "fc1", p=3), "P104", "region 'fc1' has β=0.01, κ=1, p=3, q=2 out of range"),
    "target activation": (
        lambda p: edit(p, Target, "fc1", phi="relv"), "P104", "region 'fc1' has unknown target activation 'relv'"),
    "output with a target": (
        lambda p: edit(p, Target, "out", rule="lra"), "P104",
        "region 'out' is the output: its rule is gradient, as its error comes from the loss"),
    "learns without parameters": (
        lambda p: edit(p, Region, "fc1", parameters=()), "P104",
        "region 'fc1' is trainable but has no parameters that learn"),
    "unknown kernel": (
        lambda p: edit(p, Pathway, "out->fc3", kernel="dens"), "P104", "pathway 'out->fc3' has unknown kernel 'dens'"),
    "kernel left to choose": (
        lambda p: edit(p, Pathway, "out->fc3", kernel="auto"), "P104", "pathway 'out->fc3' has unknown kernel 'auto'"),
    "update of another kernel": (
        lambda p: edit(p, Pathway, "out->fc3", update="tied"), "P104",
        "pathway 'out->fc3' has kernel dense, which cannot have update 'tied'"),
    "read-out inside": (
        lambda p: edit(p, Pathway, "fc3->fc2", update="local_readout"), "P104",
        "pathway 'fc3->fc2' has update local_readout, but comes from 'fc3', not from the output"),
    "rank without low_rank": (
        lambda p: edit(p, Pathway, "out->fc3", rank=2), "P104", "pathway 'out->fc3' has kernel dense with rank 2"),
    "low_rank without rank": (
        lambda p: edit(p, Pathway, "out->fc3", kernel="low_rank"), "P104",
        "pathway 'out->fc3' has kernel low_rank with rank 0"),
    "unknown init": (
        lambda p: edit(p, Pathway, "out->fc3", init="ones"), "P104",
        "pathway 'out->fc3' has kernel dense, which cannot have init 'ones'"),
    "copy into thin synapses": (
        lambda p: edit(p, Pathway, "fc3->fc2", kernel="low_rank", rank=1, init="transpose"), "P104",
        "pathway 'fc3->fc2' has kernel low_rank, which cannot have init 'transpose'"),
    "gamma": (
        lambda p: edit(p, Pathway, "out->fc3", gamma=-1.0), "P104",
        "pathway 'out->fc3' has scale=0.001, gamma=-1 out of range"),
    "growth limit": (
        lambda p: edit(p, Pathway, "out->fc3", update="lra"), "P104",
        "pathway 'out->fc3' has update lra with growth_limit=0, which has to be above 1"),
    "no edge": (
        lambda p: edit(p, Pathway, "out->fc3", kernel="adjoint", update="tied", init="none"), "P104",
        "pathway 'out->fc3' has kernel adjoint, but 'out' does not read 'fc3'"),
    # waves
    "cycle": (
        lambda p: edit(p, Pathway, "out->fc3", source="fc1"), "P105",
        "the pathways form a cycle: fc1 → fc3 → fc2 → fc1"),
    "waves swapped": (
        lambda p: replace(p, waves=(p.waves[0], p.waves[2], p.waves[1], *p.waves[3:])), "P105",
        "the waves are not the generations of the error graph"),
    "wave lost": (
        lambda p: replace(p, waves=p.waves[:-1]), "P105", "the waves are not the generations of the error graph"),
    "hears nothing": (
        lambda p: without(p, Pathway, "out->fc3"), "P105",
        "the error graph starts at 'fc3', 'out', not at the output region alone"),
    "no target": (
        lambda p: without(p, Target, "fc1"), "P105", "either a target or a pathway is missing for 'fc1'"),
    # tasks
    "task missing": (lambda p: without(p, Task, "U fc2"), "P106", "task 'U fc2' is missing"),
    "task too many": (
        lambda p: inserted_first(p, Task("V", "fc1", ("x0",), ("g.v",))), "P106",
        "task 'V fc1' does not belong to this wiring"),
    "task of no kind": (
        lambda p: inserted_first(p, Task("Q", "fc1", ("x0",))), "P106", "task 'Q fc1' does not belong to this wiring"),
    "wrong reads": (
        lambda p: edit(p, Task, "U fc1", reads=("e.fc1",)), "P106",
        "task 'U fc1' reads or writes other values than its region or pathway needs"),
    "wrong writes": (
        lambda p: edit(p, Task, "U fc1", writes=("g.fc1", "g.more")), "P106",
        "task 'U fc1' reads or writes other values than its region or pathway needs"),
    "wrong wave": (lambda p: edit(p, Task, "T fc1", wave=1), "P106", "task 'T fc1' is in wave 1, not 3"),
    "learns unasked": (
        lambda p: edit(p, Target, "fc1", trainable=False), "P106", "task 'U fc1' does not belong to this wiring"),
    # order
    "swapped": (
        lambda p: swapped(p, "T fc1", "U fc1"), "P107", "task 'U fc1' reads 'e.fc1' before it is written"),
    "read after free": (
        lambda p: moved_to_the_end(p, "V out->fc3"), "P107", "task 'V out->fc3' reads 'z.fc3' after it was freed"),
    "never freed": (lambda p: without(p, Task, "X U:fc2"), "P107", "never freed: h.fc2"),
    "freed twice": (
        lambda p: replace(p, tasks=(*p.tasks, Task("X", "again", ("h.fc2",)))), "P107",
        "task 'X again' frees 'h.fc2' after it was freed"),
    "result freed": (
        lambda p: replace(p, tasks=(*p.tasks, Task("X", "end", ("g.fc1",)))), "P107",
        "task 'X end' frees 'g.fc1', which outlives the step"),
    "free that writes": (
        lambda p: edit(p, Task, "X U:fc2", writes=("g.x",)), "P107",
        "task 'X U:fc2' writes 'g.x', but is only to free values"),
    "written twice": (
        lambda p: edit(p, Task, "U fc1", writes=("g.fc2",)), "P107", "task 'U fc1' writes 'g.fc2' a second time"),
    "task twice": (lambda p: twice(p, Task, "V out->fc3"), "P107", "task 'V out->fc3' appears 2 times"),
    "input overwritten": (
        lambda p: edit(p, Task, "F fc1", writes=("x0",)), "P107", "task 'F fc1' writes 'x0' a second time"),
}  # fmt: skip


def faults(plan: Plan) -> list[tuple[str, str]]:
    """Code and message of each fault."""
    with pytest.raises(PlanError) as caught:
        verify(plan)
    return [(f.code, f.message) for f in caught.value.faults]


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_a_broken_invariant_is_named(sound: Plan, name: str) -> None:
    change, code, message = MUTATIONS[name]
    assert (code, message) in faults(change(sound))


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_a_broken_plan_text_does_not_run(sound: Plan, name: str) -> None:
    change, code, message = MUTATIONS[name]
    text = str(change(sound))
    with pytest.raises(PlanError) as caught:
        rc.compile(*build("mlp"), plan=Plan.parse(text))
    assert (code, message) in [(f.code, f.message) for f in caught.value.faults]


def test_every_code_has_a_mutation() -> None:
    assert {code for _, code, _ in MUTATIONS.values()} == set(CODES)


def test_edges_that_leave_one_region_are_of_one_kind(edges: Plan) -> None:
    broken = edit(edges, Pathway, "fc3->fc1", update="kolen_pollack")
    message = "pathways 'fc3->fc2' and 'fc3->fc1' leave 'fc3' along edges with different kernels"
    assert ("P104", message) in faults(broken)


def test_all_faults_are_reported_at_once(sound: Plan) -> None:
    broken = edit(sound, Target, "fc1", beta=-1.0)
    broken = edit(broken, Region, "fc2", inputs=("z.fc9",))
    broken = replace(broken, waves=broken.waves[:-1], placement=Placement())
    broken = without(broken, Task, "X U:fc2")
    found = faults(broken)
    assert {code for code, _ in found} >= {"P102", "P103", "P104", "P105", "P107"}
    assert len([code for code, _ in found if code == "P103"]) == len(sound.regions)


def test_a_plan_of_nothing_is_refused(sound: Plan) -> None:
    assert faults(replace(sound, regions=(), targets=(), pathways=(), waves=(), tasks=()))


@pytest.mark.parametrize("wiring", list(shipped()))
def test_compiled_plans_are_sound(wiring: str) -> None:
    plan = plan_for(*build("residual"), wiring)
    assert verify(plan) is plan


def test_targets_may_stand_in_any_order(edges: Plan) -> None:
    verify(replace(edges, targets=edges.targets[::-1]))


def test_an_edited_setting_is_sound(sound: Plan) -> None:
    edited = edit(sound, Target, "fc1", beta=0.5, phi="tanh", p=1, q=1)
    edited = edit(edited, Pathway, "fc3->fc2", update="lra", growth_limit=10.0)
    assert faults(edited) == [
        ("P106", "task 'V fc3->fc2' reads or writes other values than its region or pathway needs")
    ]
    verify(edit(sound, Target, "fc1", beta=0.5, phi="tanh", p=1, q=1))


def test_a_frozen_region_without_its_update_is_sound(sound: Plan) -> None:
    edited = edit(sound, Target, "fc1", trainable=False)
    tasks = tuple(t for t in edited.tasks if t.kind != "X" and t.id != "U fc1")
    verify(replace(edited, tasks=frees(tasks)))


# The model a plan belongs to


def test_a_sound_plan_runs(sound: Plan) -> None:
    program = rc.compile(*build("mlp"), plan=Plan.parse(str(sound)))
    assert program.plan == sound


def test_a_plan_of_another_model_is_refused(sound: Plan) -> None:
    _, x = build("mlp")
    with pytest.raises(PlanError, match=r"error\[P010\]: the plan was made for another model"):
        rc.compile(MLP(width=9), x, plan=sound)
    with pytest.raises(PlanError, match="P010"):
        rc.compile(*build("mlp"), plan=replace(sound, fingerprint="m000000000000"))


def test_a_wiring_and_a_plan_are_too_much(sound: Plan) -> None:
    with pytest.raises(PlanError, match="P012"):
        rc.compile(*build("mlp"), "depth2", plan=sound)
