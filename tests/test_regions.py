"""Regions: what a layer takes in, which blocks are found, how groups balance, and blocks inside blocks."""

from __future__ import annotations

import json

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import reclra_compile as rc
from reclra_compile.cli.main import main
from reclra_compile.compiler import regions_for
from reclra_compile.ir import Region
from reclra_compile.spec.blocks import Group, blocks, cycle, edges, groups, merge


def found(name: str, granularity: str) -> dict[str, Region]:
    _, regions, _ = regions_for(*ARCHITECTURES[name](), granularity=granularity)
    return {r.name: r for r in regions}


BLOCKS = {
    "resnet": ["conv1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc"],
    "preactivation": ["stem", "convs.0-1", "convs.2-3", "fc"],
    "resnext": ["0", "2", "3", "4.2"],
    "gpt": ["wte", "h.0", "h.1", "lm_head"],
    "vit": ["patch", "blocks.0", "blocks.1", "head"],
    "bert": ["embed", "query-out", "up-down", "head"],
    "llama": ["0", "1", "2", "4"],
    "mixer": ["patch", "mixers.0", "mixers.1", "head"],
    "inception": ["stem", "inception1", "inception2", "fc"],
    "unet": ["enc1", "enc2", "mid", "up2", "dec2", "up1", "dec1", "out"],
    "densenet": ["stem", "layers", "transition", "fc"],
    "tabular": ["embed.0", "fc1", "out"],
    "lstm": ["lstm", "fc"],
    "autoencoder": ["0", "2", "4", "6"],
    "shared": ["a", "b-out"],
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_blocks_are_those_a_person_would_name(name: str) -> None:
    assert list(found(name, "block")) == BLOCKS[name]


@pytest.mark.parametrize("granularity", ["layer", "block", "groups=2"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_has_a_home(name: str, granularity: str) -> None:
    model, inputs = ARCHITECTURES[name]()
    _, regions, _ = regions_for(model, inputs, granularity=granularity)
    assert {p for r in regions for p in r.parameters} == {n for n, _ in model.named_parameters()}


def test_a_norm_before_a_layer_is_the_layers_and_one_after_a_join_the_joins() -> None:
    gpt, bert = found("gpt", "layer"), found("bert", "layer")
    assert "h.0.ln_1.weight" in gpt["h.0.attn.c_attn"].parameters
    assert "ln_f.weight" in gpt["lm_head"].parameters, "the last norm of a pre-norm network belongs to its head"
    assert "norm1.weight" in bert["out"].parameters
    assert gpt["lm_head"].parameters[0] != "lm_head.weight", "the tied weight has one name"


def test_a_gelu_written_by_hand_stays_with_its_layer() -> None:
    up = found("bert", "layer")["up"]
    assert up.shape == (6, 16) and len(up.outputs) == 1 and up.inputs == ("z.out",)


def test_embeddings_positions_and_class_tokens_have_a_home() -> None:
    gpt, vit, tabular = found("gpt", "layer"), found("vit", "layer"), found("tabular", "layer")
    assert set(gpt["wte"].parameters) == {"wte.weight", "wpe.weight"} and gpt["wte"].shape == (6, 8)
    assert set(vit["patch"].parameters) == {"cls", "pos", "patch.weight", "patch.bias"}
    assert vit["patch"].shape == (5, 8) and vit["patch"].channel_axis == 1
    assert tabular["embed.0"].op == "Embedding×3"


def test_pooling_and_flatten_travel_with_their_producer() -> None:
    last = found("resnet", "layer")["layer2.1.conv2"]
    assert last.tail and last.phi == "relu" and last.shape == (8, 4, 4) and last.channel_axis == 0


def test_a_shape_does_not_leave_a_region() -> None:
    """B, T, C = x.size() reads the norm's result, which would have to leave the region for its shape alone."""
    gpt = found("gpt", "layer")
    assert [len(r.outputs) for r in gpt.values() if r.name.endswith("c_attn")] == [3, 3], "query, key, value"


def test_a_module_that_is_used_twice_gives_two_regions_with_one_weight() -> None:
    shared = found("shared", "layer")
    assert shared["b"].parameters == shared["b@2"].parameters


# Blocks, groups and merging on graphs alone


def chain(costs: list[int]) -> list[Region]:
    return [
        Region(f"fc{k}", "Linear", "relu", (f"z.fc{k - 1}" if k else "x0",), (f"z.fc{k}",), (4,), forward_flops=c)
        for k, c in enumerate(costs)
    ]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.data())
def test_groups_are_as_equal_as_blocks_allow(costs: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(costs)))
    regions = chain(costs)
    made = groups([Group(r.name, (r.name,)) for r in regions], {r.name: r.forward_flops for r in regions}, count)
    assert len(made) == count and all(g.layers for g in made)
    assert [n for g in made for n in g.layers] == [r.name for r in regions]
    dearest = max(sum(costs[int(n[2:])] for n in g.layers) for g in made)
    assert dearest == best(costs, count)


def best(costs: list[int], count: int) -> int:
    """The cheapest dearest run, by trying all cuts."""
    if count == 1:
        return sum(costs)
    return min(max(sum(costs[:k]), best(costs[k:], count - 1)) for k in range(1, len(costs) - count + 2))


@st.composite
def networks(draw: st.DrawFn) -> list[Region]:
    """Random region graphs: each region reads one to three earlier values; all reach the last."""
    size = draw(st.integers(1, 12))
    read: set[int] = set()
    regions = []
    for k in range(size):
        before = sorted(draw(st.sets(st.integers(0, k - 1), min_size=1, max_size=3))) if k else []
        if k == size - 1:
            before = sorted({*before, *(set(range(size - 1)) - read)})
        read |= set(before)
        inputs = tuple(f"z.{i}" for i in before) or ("x0",)
        regions.append(Region(f"m.{k % 4}.l{k}", "Linear", "relu", inputs, (f"z.{k}",), (4,), forward_flops=k + 1))
    return regions


@given(networks())
def test_blocks_cover_the_network_in_order_and_feed_forward_only(regions: list[Region]) -> None:
    made = blocks(regions, regions[-1].name)
    names = [n for g in made for n in g.layers]
    assert sorted(names) == sorted(r.name for r in regions)
    assert len({g.name for g in made}) == len(made)
    assert cycle(regions, made) == []


@given(networks())
def test_every_path_passes_the_end_of_a_block(regions: list[Region]) -> None:
    """Between two blocks that are not the network's modules, all paths go through the earlier one's last region."""
    made = blocks(regions, regions[-1].name)
    graph = edges(regions)
    if any(2 * len(g.layers) > len(regions) for g in made) or not all(len(g.layers) for g in made):
        return
    last = regions[-1].name
    order = [r.name for r in regions]
    for g in made[:-1]:
        end = max(g.layers, key=order.index)
        if order.index(end) + 1 == sum(len(h.layers) for h in made[: made.index(g) + 1]):
            without = graph.copy()
            without.remove_node(end)
            later = [n for n in order[order.index(end) + 1 :] if n in without]
            earlier = [n for n in order[: order.index(end)] if n in without]
            crossing = any(nx.has_path(without, a, b) for a in earlier for b in later)
            assert not crossing or last == end


@given(networks(), st.data())
def test_a_merge_that_would_run_in_a_circle_is_found(regions: list[Region], data: st.DataObject) -> None:
    units = [Group(r.name, (r.name,)) for r in regions]
    chosen = sorted(data.draw(st.sets(st.integers(0, len(units) - 1), min_size=1)))
    together = merge(units, chosen, "merged")
    graph: nx.DiGraph[str] = nx.DiGraph()
    home = {n: g.name for g in together for n in g.layers}
    graph.add_nodes_from(home.values())
    graph.add_edges_from((home[a], home[b]) for a, b in edges(regions).edges if a in home and home[a] != home[b])
    assert bool(cycle(regions, together)) == (not nx.is_directed_acyclic_graph(graph))


# Blocks inside blocks


def test_a_block_inside_a_block() -> None:
    """Groups, blocks in them, layers in those: three levels, one flat error graph that starts at the output."""
    model, inputs = ARCHITECTURES["resnet"]()
    wiring = {
        "version": 1,
        "regions": {"granularity": {"groups": 2}},
        "pathways": [{"from": "output", "to": "all"}],
        "inside": {
            "regions": {"granularity": "block"},
            "pathways": [{"from": "output", "to": "all"}],
            "inside": "lra_e",
        },
    }
    plan = rc.plan_for(model, inputs, wiring)
    within = {r.name: r.within for r in plan.regions}
    assert within["layer1.0.conv1"] == ("group1", "layer1.0")
    assert within["fc"] == ("group2",)
    by_target = {p.target: p.source for p in plan.pathways}
    group1_ends = by_target["layer1.0.conv2"]
    assert by_target[group1_ends] == "fc", "the group's output hears the model's output"
    assert by_target["layer1.0.conv1"] == "layer1.0.conv2", "the layer hears its block's output"
    assert rc.Plan.parse(str(plan)) == plan
    assert rc.compile(model, inputs, plan=plan).plan == plan


def test_one_block_may_have_a_wiring_of_its_own() -> None:
    model, inputs = ARCHITECTURES["resnet"]()
    wiring = {
        "version": 1,
        "regions": {"granularity": "block"},
        "pathways": [{"from": "output", "to": "all"}],
        "overrides": [{"regions": "layer2.*", "inside": "depth1"}],
    }
    plan = rc.plan_for(model, inputs, wiring)
    names = [r.name for r in plan.regions]
    assert "layer1.0" in names and "layer2.0" not in names and "layer2.0.shortcut.0" in names


def test_inside_a_block_there_are_no_labels() -> None:
    model, inputs = ARCHITECTURES["resnet"]()
    plan = rc.plan_for(model, inputs, "blocks_nested")
    updates = {p.update for p in plan.pathways if p.source != "fc"}
    assert updates == {"kolen_pollack"}
    assert {p.update for p in plan.pathways if p.source == "fc"} == {"local_readout"}


def test_a_frozen_block_gets_no_errors_inside() -> None:
    model, inputs = ARCHITECTURES["resnet"]()
    wiring = {
        "version": 1,
        "regions": {"granularity": "block"},
        "frozen": "layer1.*",
        "pathways": [{"from": "output", "to": "rest"}],
        "inside": "depth1",
    }
    wiring["pathways"] = [{"from": "output", "to": ["conv1", "layer2.*"]}]
    plan = rc.plan_for(model, inputs, wiring)
    assert not any(p.target.startswith("layer1") for p in plan.pathways)
    program = rc.compile(model, inputs, wiring)
    program.step(*inputs, torch.zeros(3, dtype=torch.long))
    assert all((p.grad is None) == n.startswith("layer1") for n, p in model.named_parameters())


def test_merged_regions_are_one_region() -> None:
    model, inputs = ARCHITECTURES["resnet"]()
    regions = {"granularity": "block", "merge": ["layer1", ["layer2.*", "fc"]]}
    wiring = {"version": 1, "regions": regions, "pathways": [{"from": "output", "to": "all"}]}
    plan = rc.plan_for(model, inputs, wiring)
    assert [r.name for r in plan.regions] == ["conv1", "layer1", "layer2.0-fc"]
    assert plan.region("layer1").layers == ("layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2")


@pytest.mark.parametrize("text", ["blocks", "groups", "groups=0", "groups=x", "block=2", ""])
def test_an_unknown_granularity_is_refused(text: str) -> None:
    with pytest.raises(rc.WiringError, match="W040"):
        rc.plan_for(nn.Linear(2, 2), torch.zeros(1, 2), "backprop", granularity=text)


def test_a_plan_of_another_partition_of_the_same_model_still_runs() -> None:
    """A plan carries its partition with it."""
    model, inputs = ARCHITECTURES["resnet"]()
    plan = rc.plan_for(model, inputs, "blocks", granularity="groups=2")
    program = rc.compile(model, inputs, plan=plan)
    loss = program.step(*inputs, torch.zeros(3, dtype=torch.long))
    assert loss.isfinite() and len(program.plan.regions) == 2


def test_frozen_parameters_get_no_update_and_need_no_error() -> None:
    model, inputs = ARCHITECTURES["resnet"]()
    for p in model.layer1.parameters():
        p.requires_grad_(False)
    plan = rc.plan_for(model, inputs, "depth1")
    assert plan.region("layer1.0.conv1").frozen and not any(p.target.startswith("layer1") for p in plan.pathways)
    program = rc.compile(model, inputs, "backprop", loss_fn=F.cross_entropy)
    program.step(*inputs, torch.zeros(3, dtype=torch.long))
    assert all((p.grad is None) == n.startswith("layer1") for n, p in model.named_parameters())


# The command


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_regions_command_shows_a_table_and_a_tree(tmp_path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "block = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())\n"
        "model = nn.Sequential(block, nn.Linear(8, 2))\n"
        "example_inputs = torch.zeros(2, 4)\n"
    )
    text = run("regions", str(file), "--granularity", "block")
    assert "2 regions" in text and "Linear×2" in text and "0.2  Linear, relu" in text
    assert "net.py:" not in run("regions", str(file)).splitlines()[0]
    report = json.loads(run("regions", str(file), "--granularity", "block", "--json"))
    assert [part["name"] for part in report["tree"]] == ["0", "1"]
    assert report["regions"][0]["layers"] == ["0.0", "0.2"]
