"""A plan's text reads back equal, can be edited, and reports every malformed line."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import build

from reclra_compile.compiler import plan_for
from reclra_compile.errors import Notice, PlanError
from reclra_compile.ir import Cost, Device, Pathway, Placement, Plan, Region, Schedule, Target, Task, Training
from reclra_compile.spec.load import shipped
from reclra_compile.text import CODES

MODELS = ("residual", "branching", "dropout", "wide")
settings.register_profile("text", deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
RUN = settings.get_profile("text")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_for(*build("mlp"), "depth2")


@pytest.mark.parametrize("wiring", list(shipped()))
@pytest.mark.parametrize("model", MODELS)
def test_shipped_wirings_read_back_equal(model: str, wiring: str) -> None:
    made = plan_for(*build(model), wiring)
    text = str(made)
    assert Plan.parse(text) == made
    assert str(Plan.parse(text)) == text


# Odd contents

ODD = ["", "true", "null", "NaN", "Infinity", "-", "a b", 'a"b', "a=b", "[", "#", "# x", "é", "φ", "\u2028", "\x85",
       "\ud800", "\x00", "a\nb", "\r", "1", "1e5", "-1", "\\", "{}", "a,b", "\u200b", " ", "name=x", "𝔘"]  # fmt: skip
words = st.one_of(st.sampled_from(ODD), st.text(max_size=12), st.text(string.printable, max_size=12))
floats = st.floats(allow_nan=False)
whole = st.integers(-(10**20), 10**20)
names = st.lists(words, max_size=3).map(tuple)
sizes = st.lists(whole, max_size=3).map(tuple)


def record(cls: type[Any], least: int = 0, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.builds(cls, **fields), min_size=least, max_size=2).map(tuple)


regions = record(
    Region, 1, name=words, op=words, phi=words, inputs=names, outputs=names, shape=sizes, parameters=names,
    parameter_count=whole, weight_count=whole, forward_bytes=whole, output_bytes=sizes, z_bytes=whole,
    tail=st.booleans(), batched=st.booleans(), source=words,
)  # fmt: skip
targets = record(
    Target, region=words, rule=words, beta=floats, normalize=st.booleans(), kappa=floats, p=whole, q=whole, phi=words,
    rescale=st.booleans(), trainable=st.booleans(),
)  # fmt: skip
pathways = record(
    Pathway, name=words, source=words, target=words, kernel=words, update=words, init=words, scale=floats,
    gamma=floats, growth_limit=floats, rank=whole, synapses=whole, reason=words,
)  # fmt: skip
tasks = record(Task, kind=words, subject=words, reads=names, writes=names, wave=whole, device=whole, flops=whole,
               bytes=whole, us=floats, turn=whole)  # fmt: skip
devices = record(Device, 1, name=words, kind=words, flops_per_s=floats, memory_bytes=whole, task_us=floats)
plans = st.builds(
    Plan,
    name=words, model=words, fingerprint=words, batch=whole, output=words,
    inputs=st.lists(st.tuples(words, sizes, words), max_size=2).map(tuple),
    regions=regions, targets=targets, pathways=pathways, tasks=tasks,
    waves=st.lists(names, min_size=1, max_size=2).map(tuple),
    devices=devices,
    placement=st.builds(
        Placement, regions=st.lists(st.tuples(words, whole), max_size=2).map(tuple), peak_bytes=sizes
    ),
    schedule=st.builds(Schedule, microbatches=whole, staleness=whole),
    cost=st.builds(Cost, backprop_flops=whole, parameter_bytes=whole),
    training=st.builds(Training, optimizer=words, lr=floats, epochs=whole),
    warnings=st.lists(st.builds(Notice, words, st.sampled_from(("", "W104")))).map(tuple),
    version=st.just(1),
)  # fmt: skip


@RUN
@given(plans)
def test_any_plan_reads_back_equal(made: Plan) -> None:
    text = str(made)
    assert Plan.parse(text) == made
    assert text.encode("utf-8").decode() == text
    assert all(line.isprintable() for line in text.split("\n"))


def test_warnings_of_older_plans_have_no_code(plan: Plan) -> None:
    text = str(replace(plan, warnings=())) + 'warning "said before codes"\n'
    assert [str(w) for w in Plan.parse(text).warnings] == ["warning: said before codes"]
    assert 'warning "two words" code=W104' in str(replace(plan, warnings=(Notice("two words", "W104"),)))


def test_line_ends_and_byte_order_marks_of_editors_are_harmless(plan: Plan) -> None:
    assert Plan.parse("\ufeff" + str(plan).replace("\n", "\r\n")) == plan
    assert Plan.parse(str(plan).replace("\n", "\n\n   # a remark\n")) == plan


# Editing


def test_an_edit_of_the_text_is_an_edit_of_the_plan(plan: Plan) -> None:
    text = str(plan).replace("target fc3 rule=lra beta=0.01", "target fc3 rule=lra beta=2")
    edited = Plan.parse(text)
    assert next(t for t in edited.targets if t.region == "fc3").beta == 2.0
    assert isinstance(next(t for t in edited.targets if t.region == "fc3").beta, float)
    assert replace(edited, targets=plan.targets) == plan


def test_defaults_are_left_out_and_may_be_written(plan: Plan) -> None:
    text = str(plan)
    assert "rescale" not in text
    assert Plan.parse(text.replace("target out rule=gradient", "target out rule=gradient rescale=false p=2")) == plan


def test_records_of_several_kinds_may_be_mixed(plan: Plan) -> None:
    first, *lines = str(plan).splitlines()
    by_kind = sorted(lines, key=lambda line: line.split(" ", 1)[0])
    assert Plan.parse("\n".join([first, *by_kind])) == plan


# Malformed text

LINES = [
    ("regoin fc1 op=Linear", "unknown record 'regoin'; did you mean 'region'?"),
    ("region", "this region line has no name"),
    ("region fc9", "this region line has no 'op', 'phi', 'inputs', 'outputs', 'shape'"),
    ("region f op=L phi=relu inputs=[] outputs=[] shape=64", "field 'shape' has 64, but needs [a whole number, …]"),
    ("region f op=L phi=relu inputs=[] outputs=[] shape=[1.5]", "field 'shape' has 1.5, but needs a whole number"),
    ("target fc9 rule=lra beta=big", "field 'beta' has \"big\", but needs a number"),
    ("target fc9 rule=lra beta=true", "field 'beta' has true, but needs a number"),
    ("target fc9 rule=lra trainable=1", "field 'trainable' has 1, but needs true or false"),
    ("target fc9 rule=lra btea=0.1", "unknown field 'btea'; did you mean 'beta'?"),
    ("target fc9 rule=lra beta=0.1 beta=0.2", "field 'beta' is given twice"),
    ("target fc9 rule=lra region=fc8", "field 'region' is given twice"),
    ("target fc9 rule=lra beta=", "malformed value at the end of the line"),
    ("target fc9 rule=lra beta", "expected key=value at 'beta'"),
    ("target fc9 rule=[", "malformed value at '['"),
    ("target fc9 rule=lra beta=" + "1" * 5000, "number too long at '" + "1" * 30 + "'"),
    ('pathway "a" b', "expected key=value at 'b'"),
    ("task F", "this task line has no subject"),
    ("task F fc9", "this task line has no 'reads'"),
    ("wave fc9", "field 'wave' has \"fc9\", but needs [text, …]"),
    ('wave ["a"] ["b"]', "unexpected text after the value: '[\"b\"]'"),
    ('wave ["a", 1]', "field 'wave' has 1, but needs text"),
    ("wave " + "[" * 100_000, "lists are nested too deeply"),
    ('warning {"a": 1}', "field 'message' has {\"a\":1}, but needs text"),
]


@pytest.mark.parametrize(("line", "message"), LINES, ids=[line[:28] for line, _ in LINES])
def test_a_malformed_line_is_named(plan: Plan, line: str, message: str) -> None:
    text = f"{plan}{line}\n"
    with pytest.raises(PlanError) as caught:
        Plan.parse(text, "my.plan")
    (fault,) = caught.value.faults
    assert (fault.code, fault.message, str(fault.where)) == ("P002", message, f"my.plan:{text.count(chr(10))}")


def test_all_malformed_lines_are_reported_at_once(plan: Plan) -> None:
    text = str(plan) + "\n".join(line for line, _ in LINES)
    with pytest.raises(PlanError) as caught:
        Plan.parse(text)
    first = str(plan).count("\n") + 1
    assert [f.where.line for f in caught.value.faults if f.where] == list(range(first, first + len(LINES)))
    assert [f.message for f in caught.value.faults] == [message for _, message in LINES]


def test_placements_are_pairs(plan: Plan) -> None:
    with pytest.raises(PlanError, match=r"but needs \[text, a whole number\]"):
        Plan.parse(str(plan).replace('["fc1",0]', '["fc1"]'))


@pytest.mark.parametrize("kind", ["plan", "cost", "training", "placement"])
def test_a_line_that_stands_twice(plan: Plan, kind: str) -> None:
    line = next(x for x in str(plan).splitlines() if x.startswith(f"{kind} "))
    with pytest.raises(PlanError, match=rf"error\[P003\] <plan>:\d+: a second '{kind}' line"):
        Plan.parse(f"{plan}{line}")


def test_lines_that_are_missing() -> None:
    with pytest.raises(PlanError) as caught:
        Plan.parse("reclra-compile plan 1")
    missing = ("plan", "region", "wave")
    assert [f.message for f in caught.value.faults] == [f"the plan has no '{k}' line" for k in missing]


def test_an_incomplete_plan_line_says_what_is_missing(plan: Plan) -> None:
    with pytest.raises(PlanError, match=r"<plan>:2: this plan line has no 'batch', 'inputs'"):
        Plan.parse(str(plan).replace("batch=4 ", "").replace('inputs=[["x0",[6],"float32"]]', ""))


@pytest.mark.parametrize("text", ["", "\n", "version: 1\npathways:\n", "reclra-compile", "{}", "\x00"])
def test_what_is_no_plan_is_said_once(text: str) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.parse(text)
    (fault,) = caught.value.faults
    assert (fault.code, fault.fix) == ("P001", "a plan's first line is 'reclra-compile plan 1'")


@pytest.mark.parametrize("version", ["2", "1.5", ""])
def test_other_versions_are_refused(plan: Plan, version: str) -> None:
    with pytest.raises(PlanError, match=rf"plan version {version or 'missing'}; this build reads 1\n  fix: compile"):
        Plan.parse(str(plan).replace("plan 1", f"plan {version}", 1))


# Arbitrary text


def refused_or_read(text: str) -> None:
    codes = {"P001"}
    try:
        Plan.parse(text)
    except PlanError as error:
        codes = {f.code for f in error.faults}
    assert codes
    assert codes <= set(CODES)


@RUN
@given(st.lists(st.one_of(st.text(), st.sampled_from([line for line, _ in LINES])), max_size=5))
def test_arbitrary_lines_never_crash(lines: list[str]) -> None:
    refused_or_read("\n".join(["reclra-compile plan 1", *lines]))


@RUN
@given(st.text())
def test_arbitrary_text_never_crashes(text: str) -> None:
    refused_or_read(text)


@RUN
@given(st.data())
def test_a_damaged_plan_never_crashes(plan: Plan, data: st.DataObject) -> None:
    text = str(plan)
    a, b = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    damage = data.draw(st.one_of(st.text(max_size=5), st.sampled_from(["[", '"', "=", "\n", " ", "1", "null"])))
    refused_or_read(text[:a] + damage + text[min(b, a + 40) :])
