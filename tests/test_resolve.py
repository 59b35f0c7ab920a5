"""What wirings mean on models: selectors, sources, waves, options, automatic choices and costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import MLP, ResidualMLP, build
from torch import nn

from reclra_compile.compiler import plan_for
from reclra_compile.errors import Notice, WiringError
from reclra_compile.ir import Pathway, Plan, Region, Target
from reclra_compile.spec.resolve import CODES

FC = ["fc1", "fc2", "fc3", "fc4", "fc5"]
ALL_FROM_OUTPUT = [{"from": "output", "to": "all"}]


def wire(model: str | nn.Module, *pathways: dict[str, Any], batch: int = 4, **more: Any) -> Plan:
    """The plan of a named model (or of one that takes (N, 6)) with these pathways."""
    module, x = build(model, batch) if isinstance(model, str) else (model, torch.zeros(batch, 6))
    return plan_for(module, x, {"version": 1, "pathways": list(pathways)} | more)


def chosen(plan: Plan, source: str = "out") -> list[str]:
    """Targets of the pathways from `source`, in the model's order."""
    order = [r.name for r in plan.regions]
    return sorted((p.target for p in plan.pathways if p.source == source), key=order.index)


def links(plan: Plan) -> set[tuple[str, str]]:
    return {(p.source, p.target) for p in plan.pathways}


def pathway(plan: Plan, name: str) -> Pathway:
    return next(p for p in plan.pathways if p.name == name)


def target(plan: Plan, name: str) -> Target:
    return next(t for t in plan.targets if t.region == name)


# Selectors


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("all", FC),
        ("rest", FC),
        ("fc3", ["fc3"]),
        (["fc4", "fc2"], ["fc2", "fc4"]),
        ("fc[12]", ["fc1", "fc2"]),
        ("*", FC),
        (["fc5", "*1"], ["fc1", "fc5"]),
        ({"names": ["fc?"]}, FC),
        ({"every": 1}, FC),
        ({"every": 2}, ["fc2", "fc4"]),
        ({"every": 3}, ["fc3"]),
        ({"every": 2, "start": 1}, ["fc1", "fc3", "fc5"]),
        ({"every": 3, "start": 2}, ["fc2", "fc5"]),
        ({"every": 5, "start": 4}, ["fc4"]),
        ({"layers": [5, 1]}, ["fc1", "fc5"]),
        ({"narrowest": 1}, ["fc1"]),
        ({"narrowest": 99}, FC),
        ({"phi": "relu"}, FC),
    ],
)
def test_selectors_on_a_chain(selector: object, expected: list[str]) -> None:
    silent_is_no_fault = [n for n in FC if n not in expected]
    more = {"frozen": silent_is_no_fault} if silent_is_no_fault else {}
    assert chosen(wire("mlp", {"from": "output", "to": selector}, **more)) == expected


def test_narrowest_counts_neurons_and_then_the_models_order() -> None:
    model = MLP(wide={1: 30, 3: 4, 5: 2})
    plan = wire(model, {"from": "output", "to": {"narrowest": 3}}, {"from": "next", "to": "rest"})
    assert chosen(plan) == ["fc2", "fc3", "fc5"]


def test_narrowest_leaves_out_what_is_targeted_above() -> None:
    narrow = {"from": "fc1", "to": {"narrowest": 2}}
    plan = wire("mlp", {"from": "output", "to": "fc1"}, narrow, {"from": "next", "to": "rest"})
    assert chosen(plan, "fc1") == ["fc2", "fc3"]


def test_phi_selects_by_the_regions_own_activation() -> None:
    names = ["a", "b", "c"]
    net = nn.Sequential()
    for name, before, phi in zip(names, (6, 5, 5), (nn.Tanh(), nn.ReLU(), nn.Tanh()), strict=True):
        net.add_module(name, nn.Linear(before, 5))
        net.add_module(f"phi_{name}", phi)
    net.add_module("out", nn.Linear(5, 3))
    plan = wire(net, {"from": "output", "to": {"phi": "tanh"}}, {"from": "next", "to": "rest"})
    assert chosen(plan) == ["a", "c"]
    assert chosen(plan, "c") == ["b"]


def test_rest_is_what_no_earlier_entry_targets() -> None:
    plan = wire("mlp", {"from": "output", "to": ["fc2", "fc5"]}, {"from": "fc5", "to": "rest"})
    assert chosen(plan, "fc5") == ["fc1", "fc3", "fc4"]


def test_regions_without_parameters_are_no_layers() -> None:
    plan = wire("batchnorm", {"from": "output", "to": {"layers": [1, 3]}}, {"from": "next", "to": "rest"})
    assert links(plan) == {("out", "fc1"), ("out", "fc3"), ("fc3", "fc2")}


def test_every_beyond_a_shallow_model_is_a_note() -> None:
    plan = wire(MLP(hidden=1), {"from": "output", "to": {"every": 3}}, {"from": "next", "to": "rest"})
    assert links(plan) == {("out", "fc1")}
    assert plan.warnings == (
        Notice("entry 1 of the pathways has no effect: every 3 from layer 3 selects no region: the model has 2 layers",
               "W101"),
    )


def test_a_model_of_one_layer_needs_no_pathway() -> None:
    for wiring in ("backprop", "depth1", "depth2", "lra_e", "direct_feedback_alignment"):
        plan = plan_for(nn.Linear(6, 3), torch.zeros(4, 6), wiring)
        assert plan.pathways == ()
        assert len(plan.waves) == 1


# Sources


def test_next_is_the_following_layer() -> None:
    assert links(wire("mlp", {"from": "next", "to": "all"})) == set(zip([*FC[1:], "out"], FC, strict=True))


@pytest.mark.parametrize("kernel", ["dense", "adjoint"])
def test_consumers_are_all_readers(kernel: str) -> None:
    plan = wire("residual", {"from": "consumers", "to": "all", "kernel": kernel})
    skips = {(FC[i + 2], FC[i]) for i in range(3)}
    assert links(plan) == set(zip([*FC[1:], "out"], FC, strict=True)) | skips


def test_next_takes_the_first_reader_of_several() -> None:
    assert links(wire("residual", {"from": "next", "to": "all"})) == set(zip([*FC[1:], "out"], FC, strict=True))


@pytest.mark.parametrize("gap", [2, 3])
def test_consumers_follow_the_residual_gap(gap: int) -> None:
    plan = wire(ResidualMLP(gap=gap), {"from": "consumers", "to": "all"})
    assert {(b, a) for b, a in links(plan) if b != "out" and int(b[2]) - int(a[2]) > 1} == {
        (f"fc{i + gap}", f"fc{i}") for i in range(1, 6 - gap)
    }


def test_sources_in_a_branching_model() -> None:
    plan = wire("branching", {"from": "consumers", "to": "all", "kernel": "adjoint"})
    # the concatenation is part of b2, the deepest of its operands
    edges = {("out", "merge"), ("merge", "b2"), ("b2", "b1"), ("b2", "a"), ("b1", "stem"), ("a", "stem")}
    assert links(plan) == edges
    assert links(wire("branching", {"from": "next", "to": "all"})) == edges - {("b1", "stem")}


def test_relay_is_the_nearest_targeted_region_downstream() -> None:
    plan = wire("mlp", {"from": "output", "to": ["fc2", "fc4"]}, {"from": "relay", "to": "rest"})
    assert links(plan) == {("out", "fc2"), ("out", "fc4"), ("fc2", "fc1"), ("fc4", "fc3"), ("out", "fc5")}


def test_relay_goes_the_short_way_through_a_residual_model() -> None:
    plan = wire("residual", {"from": "output", "to": ["fc4"]}, {"from": "relay", "to": "rest"})
    assert links(plan) == {("out", "fc4"), ("fc4", "fc3"), ("fc4", "fc2"), ("fc4", "fc1"), ("out", "fc5")}


def test_a_relay_is_not_one_that_the_same_entry_targets() -> None:
    assert links(wire("mlp", {"from": "relay", "to": "all"})) == {("out", n) for n in FC}


def test_named_sources_and_several_of_them() -> None:
    plan = wire("mlp", {"from": "output", "to": ["fc5", "fc4"]}, {"from": ["fc4", "fc5"], "to": "rest"})
    assert links(plan) == {("out", "fc5"), ("out", "fc4")} | {(b, a) for b in ("fc4", "fc5") for a in FC[:3]}


def test_words_and_names_may_stand_together() -> None:
    plan = wire("mlp", {"from": ["output", "next"], "to": "all"})
    assert links(plan) == {("out", n) for n in FC} | set(zip(FC[1:], FC[:4], strict=True))


def test_a_source_may_be_a_selector() -> None:
    plan = wire("mlp", {"from": "output", "to": {"every": 2}}, {"from": {"layers": [4]}, "to": "rest"})
    assert chosen(plan, "fc4") == ["fc1", "fc3", "fc5"]


def test_a_source_may_be_upstream() -> None:
    plan = wire("mlp", {"from": "output", "to": "fc1"}, {"from": "fc1", "to": "rest"})
    assert plan.waves == (("out",), ("fc1",), ("fc5", "fc4", "fc3", "fc2"))


# Waves


def test_figure_1() -> None:
    """The paper's example: nine layers, relays 2, 5 and 8, every other layer hears its nearest relay."""
    plan = wire(MLP(hidden=8), {"from": "output", "to": {"layers": [2, 5, 8]}}, {"from": "relay", "to": "rest"})
    number = {r.name: i for i, r in enumerate(plan.regions, 1)}
    assert [[number[n] for n in wave] for wave in plan.waves] == [[9], [8, 5, 2], [7, 6, 4, 3, 1]]
    assert {(number[p.source], number[p.target]) for p in plan.pathways} == {
        (9, 8), (9, 5), (9, 2), (8, 7), (8, 6), (5, 4), (5, 3), (2, 1)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gap", "waves"),
    [
        (2, [["out"], ["fc8", "fc6", "fc4", "fc2"], ["fc7", "fc5", "fc3", "fc1"]]),
        (3, [["out"], ["fc8", "fc6", "fc3"], ["fc7", "fc5", "fc2"], ["fc4", "fc1"]]),
    ],
)
def test_algorithm_1(gap: int, waves: list[list[str]]) -> None:
    plan = wire(MLP(hidden=8), {"from": "output", "to": {"every": gap}}, {"from": "next", "to": "rest"})
    assert [list(w) for w in plan.waves] == waves


@pytest.mark.parametrize("hidden", [1, 2, 9])
def test_the_number_of_waves_is_bounded_by_the_gap(hidden: int) -> None:
    for gap in (1, 2, 3, 4):
        plan = wire(MLP(hidden=hidden), {"from": "output", "to": {"every": gap}}, {"from": "next", "to": "rest"})
        assert len(plan.waves) <= gap + 1


# Options


def test_overrides_apply_in_order_and_part_by_part() -> None:
    plan = wire(
        "mlp",
        *ALL_FROM_OUTPUT,
        target={"beta": 0.1, "kappa": 2.0, "normalize": False},
        overrides=[
            {"regions": "fc*", "target": {"beta": 0.2, "normalize": True}},
            {"regions": ["fc2"], "target": {"beta": 0.3, "phi": "tanh"}},
            {"regions": {"phi": "sign"}, "target": {"phi": "tanh"}},
            {"regions": {"every": 50}, "target": {"phi": "tanh"}},
        ],
    )
    assert target(plan, "fc1") == Target("fc1", "lra", beta=0.2, kappa=2.0, normalize=True)
    assert target(plan, "fc2") == Target("fc2", "lra", beta=0.3, kappa=2.0, normalize=True, phi="tanh")


def test_a_wiring_that_says_nothing_gets_settings_that_train() -> None:
    assert target(wire("mlp", *ALL_FROM_OUTPUT), "fc1") == Target("fc1", "lra", beta=0.01, normalize=True)


def test_options_without_effect_are_noted() -> None:
    plan = wire("mlp", *ALL_FROM_OUTPUT, target={"rule": "gradient", "kappa": 2.0, "beta": 0.3})
    assert target(plan, "fc1") == Target("fc1", "gradient")
    assert Notice("beta, kappa: no effect under target rule gradient", "W103") in plan.warnings


def test_the_output_keeps_the_gradient_rule() -> None:
    overrides = [{"regions": "output", "target": {"rule": "lra"}}]
    plan = wire("mlp", *ALL_FROM_OUTPUT, target={"beta": 0.5}, overrides=overrides)
    assert target(plan, "out") == Target("out", "gradient")


def test_frozen_regions_do_not_learn_and_need_no_error() -> None:
    plan = wire("mlp", {"from": "output", "to": ["fc4", "fc5"]}, frozen=["fc1", "fc2", "fc3", "fc4"])
    assert {t.region: t.trainable for t in plan.targets} == {"out": True, "fc5": True, "fc4": False}
    assert "U fc4" not in {t.id for t in plan.tasks}
    assert plan.cost.weight_flops == sum(plan.region(n).weight_flops for n in ("out", "fc5"))


def test_settings_of_an_entry_win_over_the_defaults() -> None:
    e6 = {"lra": {"gamma": 0.5, "growth_limit": 7}}
    plan = wire(
        "mlp",
        {"from": "output", "to": {"every": 2}, "update": e6, "init": {"normal": 0.2}},
        {"from": "next", "to": "rest", "kernel": {"low_rank": 2}},
        synapses={"update": "fixed", "init": {"glorot": 0.5}, "kernel": "dense"},
    )
    p, q = pathway(plan, "out->fc2"), pathway(plan, "fc2->fc1")
    assert (p.kernel, p.update, p.gamma, p.growth_limit, p.init, p.scale) == ("dense", "lra", 0.5, 7, "normal", 0.2)
    assert (q.kernel, q.rank, q.update, q.growth_limit, q.init, q.scale) == ("low_rank", 2, "fixed", 0, "glorot", 0.5)


def test_auto_choices() -> None:
    plan = wire("mlp", {"from": "output", "to": {"every": 3}}, {"from": "next", "to": "rest"})
    p, q = pathway(plan, "out->fc3"), pathway(plan, "fc3->fc2")
    assert (p.kernel, p.update, p.init, p.scale) == ("dense", "local_readout", "normal", 0.001)
    assert (q.kernel, q.update, q.init, q.scale) == ("dense", "kolen_pollack", "fan_in", 1.0)
    mirror = pathway(wire("mlp", {"from": "consumers", "to": "all", "kernel": "mirror"}), "fc2->fc1")
    assert (mirror.update, mirror.init) == ("kolen_pollack", "glorot")


@pytest.mark.parametrize("kernel", ["adjoint", "transpose", "sign"])
def test_tied_kernels_ignore_the_defaults_for_synapses(kernel: str) -> None:
    synapses = {"update": "fixed", "init": {"normal": 0.5}}
    tied = {"from": "consumers", "to": "rest", "kernel": kernel}
    plan = wire("mlp", {"from": "output", "to": "fc5"}, tied, synapses=synapses)
    p = pathway(plan, "fc2->fc1")
    assert (p.update, p.init, p.scale, p.synapses) == ("tied", "none", 1.0, 0)


def test_auto_becomes_low_rank_where_dense_is_too_large() -> None:
    plan = wire("wide", {"from": "next", "to": "all"}, synapses={"max_entries": 20_000})
    p = pathway(plan, "fc3->fc2")
    assert (p.kernel, p.rank, p.synapses) == ("low_rank", 20_000 // 800, 25 * 800)
    assert p.reason == "dense would have 150,000 entries, more than 20,000"
    assert Notice(f"pathway fc3->fc2 is low_rank (rank 25): {p.reason}", "W112") in plan.warnings
    assert {q.kernel for q in plan.pathways if q is not p} == {"dense"}
    assert pathway(wire("wide", {"from": "next", "to": "all"}, synapses={"max_entries": 1}), "fc2->fc1").rank == 1


def test_init_transpose_is_accepted_along_a_linear_layer() -> None:
    p = pathway(wire("residual", {"from": "next", "to": "all", "init": {"transpose": 0.5}}), "fc3->fc2")
    assert (p.init, p.scale) == ("transpose", 0.5)


# Training settings


def test_training_settings_merge_with_those_of_the_models_activation() -> None:
    training = {"lr": 0.01, "epochs": 3, "phi": {"relu": {"lr": 0.5, "clip": 1.0}, "tanh": {"epochs": 9}}}
    relu = wire("mlp", *ALL_FROM_OUTPUT, training=training).training
    tanh = wire("residual", *ALL_FROM_OUTPUT, training=training).training
    assert (relu.lr, relu.epochs, relu.clip, relu.optimizer) == (0.5, 3, 1.0, "adamw")
    assert (tanh.lr, tanh.epochs, tanh.clip) == (0.01, 9, 0.0)


# Costs, by hand: batch 10, widths 6 → 4 → 5 → 3


def costs(*pathways: dict[str, Any], **more: Any) -> Plan:
    return wire(MLP(hidden=2, wide={1: 4, 2: 5}), *pathways, batch=10, **more)


def test_flops_and_entries_of_dense_pathways() -> None:
    plan = costs({"from": "output", "to": "fc2"}, {"from": "fc2", "to": "fc1"})
    p, q = pathway(plan, "out->fc2"), pathway(plan, "fc2->fc1")
    assert (p.flops, p.synapses) == (2 * 10 * 5 * 3, 5 * 3 + 3)  # a read-out has a bias
    assert p.update_flops == 2 * p.flops  # reads r = Eᵀz, then adds z vᵀ
    assert (q.flops, q.synapses, q.update_flops) == (2 * 10 * 4 * 5, 4 * 5, 2 * 10 * 4 * 5)


def test_flops_of_other_updates_and_of_low_rank() -> None:
    fixed = costs({"from": "output", "to": "all", "update": "fixed"})
    assert pathway(fixed, "out->fc1").update_flops == 0
    assert "V out->fc1" not in {t.id for t in fixed.tasks}
    e6 = costs({"from": "output", "to": "all", "update": "lra"})
    assert (pathway(e6, "out->fc1").synapses, pathway(e6, "out->fc1").update_flops) == (12, 2 * 10 * 12)
    thin = pathway(costs({"from": "output", "to": "all", "kernel": {"low_rank": 2}}), "out->fc2")
    assert (thin.flops, thin.synapses) == (2 * 10 * 2 * (5 + 3), 2 * (5 + 3) + 3)


def test_cost_of_a_step() -> None:
    plan = costs({"from": "output", "to": "all"})
    forward = 2 * 10 * (6 * 4 + 4 * 5 + 5 * 3)
    errors = 2 * 10 * 3 * (4 + 5)
    cost = plan.cost
    assert cost.forward_flops == cost.weight_flops == forward
    assert cost.backprop_flops == 2 * forward + 2 * 10 * (4 * 5 + 5 * 3)
    assert (cost.error_flops, cost.synapse_update_flops) == (errors, 2 * errors)
    assert cost.parameter_bytes == 4 * (6 * 4 + 4 + 4 * 5 + 5 + 5 * 3 + 3)
    assert cost.synapse_bytes == 4 * (3 * 9 + 2 * 3)
    assert cost.flops == 2 * forward + 3 * errors
    # forward, then the widest of: ΔW of out; error to a region and its ΔW; the read-out of a region
    assert cost.critical_path_flops == forward + max(300, 300 + 400, 240 + 480, 2 * 300)
    # forward, dX of out and of fc2, ΔW of fc1
    assert cost.backprop_critical_path_flops == forward + 300 + 400 + 480


@pytest.mark.parametrize("model", ["mlp", "residual", "branching", "batchnorm", "shared"])
def test_backprop_costs_what_backprop_costs(model: str) -> None:
    module, x = build(model)
    cost = plan_for(module, x, "backprop").cost
    assert cost.ratio == 1.0
    assert cost.synapse_bytes == 0


def test_shared_parameters_are_stored_once() -> None:
    module, x = build("shared")
    assert plan_for(module, x, "depth1").cost.parameter_bytes == 4 * sum(p.numel() for p in module.parameters())


def test_an_edges_product_is_counted_once_for_all_its_targets() -> None:
    plan = wire("residual", {"from": "consumers", "to": "all", "kernel": "adjoint"})
    assert sorted(p.flops for p in plan.pathways if p.source == "fc3") == [0, plan.region("fc3").input_flops]
    mirrors = wire("residual", {"from": "consumers", "to": "all", "kernel": "mirror"})
    assert sum(p.synapses for p in mirrors.pathways) == sum(r.weight_count for r in mirrors.regions if r.name != "fc1")


# Any wiring

NAMED = st.lists(st.sampled_from(["fc1", "fc2", "fc3", "fc4", "fc5", "out", "fc*"]), min_size=1, max_size=3)
SELECTORS = st.one_of(
    st.sampled_from(["all", "rest", {"phi": "tanh"}, {"phi": "relu"}]),
    st.fixed_dictionaries({"every": st.integers(1, 9)}, optional={"start": st.integers(1, 9)}),
    st.fixed_dictionaries({"layers": st.lists(st.integers(1, 7), min_size=1, max_size=3)}),
    st.fixed_dictionaries({"narrowest": st.integers(1, 9)}),
    NAMED,
)
ENTRIES = st.fixed_dictionaries(
    {"from": st.one_of(st.sampled_from(["output", "next", "consumers", "relay"]), SELECTORS), "to": SELECTORS},
    optional={
        "kernel": st.sampled_from(["dense", "adjoint", "transpose", "sign", "mirror", {"low_rank": 2}]),
        "update": st.sampled_from(["fixed", "lra", "kolen_pollack", "local_readout", "tied"]),
        "init": st.sampled_from(["normal", "glorot", "transpose", "zeros"]),
    },
)
WIRINGS = st.fixed_dictionaries(
    {"version": st.just(1), "pathways": st.lists(ENTRIES, min_size=1, max_size=3)},
    optional={
        "frozen": SELECTORS,
        "target": st.fixed_dictionaries({"rule": st.sampled_from(["lra", "gradient"]), "rescale": st.booleans()}),
        "overrides": st.lists(st.fixed_dictionaries({"regions": SELECTORS, "target": st.just({"rule": "gradient"})})),
        "synapses": st.fixed_dictionaries({"max_entries": st.integers(1, 100)}),
    },
)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(WIRINGS)
def test_any_wiring_gives_a_sound_plan_or_a_report(wiring: dict[str, Any]) -> None:
    """A plan that is not sound would raise PlanError."""
    try:
        plan = wire("residual", *wiring["pathways"], **{k: v for k, v in wiring.items() if k != "pathways"})
    except WiringError as error:
        codes = [f.code for f in error.faults]
    else:
        codes = []
        assert {t.region for t in plan.targets} == {n for wave in plan.waves for n in wave}
    assert set(codes) <= set(CODES)


# Order


def test_one_wiring_gives_one_plan() -> None:
    assert wire("branching", *ALL_FROM_OUTPUT) == wire("branching", *ALL_FROM_OUTPUT)


def test_regions_are_what_the_model_has() -> None:
    plan = wire("branching", *ALL_FROM_OUTPUT)
    assert all(isinstance(r, Region) for r in plan.regions)
    with pytest.raises(KeyError):
        plan.region("nothing")
    with pytest.raises(WiringError, match="W020"):
        wire("branching", {"from": "output", "to": "nothing"})
