"""Wirings that the compiler chooses: the paper's case, what the model says, the files that are written, and faults."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT
from torch import nn
from zoo import ZOO

from reclra_compile import compile, plan_for
from reclra_compile.auto.design import CODES, Designed
from reclra_compile.auto.report import Report
from reclra_compile.auto.runs import error_of, runs_in
from reclra_compile.cli.main import main
from reclra_compile.errors import PlacementError, WiringError
from reclra_compile.frontend.cut import survey
from reclra_compile.frontend.load_model import load_model
from reclra_compile.frontend.partition import layers
from reclra_compile.frontend.trace import trace
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.placement.times import task_us
from reclra_compile.planning import designed
from reclra_compile.spec.load import load_text, load_wiring

FILE = str(ROOT / "examples" / "figure1.py")
_loaded = load_model(FILE)
NINE, X = _loaded.model, _loaded.inputs
ASKED: dict[str, dict[str, Any]] = {
    "named": {"bottlenecks": ["layer2", "layer5", "layer8"]},
    "counted": {"bottlenecks": 3},
    "found from widths": {"depth": 2},
    "named by a glob": {"bottlenecks": "layer[258]"},
}


ALL = {"from": "output", "to": "all"}


def asked(**auto: Any) -> dict[str, Any]:
    return {"version": 1, "auto": auto}


def design_for(model: nn.Module, inputs: Any, wiring: Mapping[str, Any], machine: Machine | None = None) -> Designed:
    ground = survey(trace(model, inputs, None))
    return designed(ground, layers(ground), load_wiring(wiring), machine or Machine())


def numbers(wave: tuple[str, ...]) -> list[int]:
    return [int(n.removeprefix("layer")) for n in wave]


@pytest.mark.parametrize("how", ASKED)
@pytest.mark.parametrize("devices", ["5", "any:5"])
def test_the_papers_bottlenecks_are_relays(how: str, devices: str) -> None:
    """Figure 1: wave 1 is {8, 5, 2} on three devices, wave 2 the other five on five."""
    plan = plan_for(NINE, X, asked(devices=devices, **ASKED[how]))
    assert [numbers(w) for w in plan.waves] == [[9], [8, 5, 2], [7, 6, 4, 3, 1]]
    assert {(p.target, p.source) for p in plan.pathways} >= {("layer8", "layer9"), ("layer7", "layer8")}


def test_the_papers_waves_run_without_conflict() -> None:
    plan = plan_for(NINE, X, asked(devices=5, depth=2))
    on = [{plan.placement.of(n) for n in wave} for wave in plan.waves]
    assert [len(w) for w in on] == [1, 3, 5]


def test_without_a_depth_the_faster_one_is_taken() -> None:
    """An output of 10 is cheaper to hear than a relay of 32; one of 2,000 is not."""
    narrow = design_for(NINE, X, asked(devices="any:5")).report
    assert len(narrow.waves) == 1 and narrow.reason.startswith("depth 1 takes")
    wide = nn.Sequential(*(part for k in range(6) for part in (nn.Linear(32, 32), nn.Tanh())), nn.Linear(32, 2000))
    report = design_for(wide, torch.zeros(4, 32), asked(devices="any:2")).report
    assert len(report.waves) == 2 and report.relays[0].name == "10"
    chosen = {a.chosen: a.error_us for a in report.alternatives}
    assert chosen[True] is not None and chosen[False] is not None and chosen[True] < chosen[False]


@pytest.mark.parametrize(("depth", "devices"), [(1, "cpu:3"), (2, "cpu:3"), (2, "any:2"), (3, "cpu:2")])
def test_the_model_prices_what_the_plan_does(depth: int, devices: str) -> None:
    """The modelled makespan is the equation over the tasks of the plan, wave by wave."""
    wiring = asked(devices=devices, depth=depth)
    report = design_for(NINE, X, wiring).report
    plan = plan_for(NINE, X, wiring)
    device = plan.devices[0]
    total = 0.0
    size = {r.name: r.z_bytes for r in plan.regions}
    heard = {p.target: p.source for p in plan.pathways}
    for wave in plan.waves[1:]:
        tasks = [t for t in plan.tasks if t.kind in "DT"]
        jobs = [
            sum(task_us(t, device) for t in tasks if t.subject in (n, f"{heard[n]}->{n}")) for n in wave
        ]  # fmt: skip
        message = max(size[heard[n]] for n in wave)
        link = message / device.link_bytes_per_s * 1e6 if device.link_bytes_per_s else 0.0
        total += device.link_latency_us + link + max(max(jobs), sum(jobs) / len(plan.devices))
    assert total == pytest.approx(report.error_us, rel=1e-6)
    assert plan.cost.synapse_bytes == report.synapse_bytes


def test_microbatches_pay_for_starting_tasks() -> None:
    whole, parts = (design_for(NINE, X, asked(devices=4, depth=1, microbatches=m)).report.error_us for m in (1, 8))
    assert parts > 3 * whole  # 30 µs to start a task, which take less than that to compute


@pytest.mark.parametrize("how", ASKED)
def test_the_file_says_what_was_chosen(how: str, tmp_path: Path) -> None:
    """The text loads as it stands and gives the same plan; each relay has its reason in a comment."""
    wiring = asked(devices=5, **ASKED[how])
    made = design_for(NINE, X, wiring)
    file = tmp_path / "chosen.yaml"
    file.write_text(made.text, encoding="utf-8")
    assert str(plan_for(NINE, X, file)) == str(plan_for(NINE, X, wiring))
    for relay in made.report.relays:
        assert f"# {relay.name}: {relay.reason}" in made.text.replace("\n  #   ", " ")
        assert "32 neurons (the fewest)" in relay.reason
    file.write_text(made.text.replace("layer6]", "layer6], update: fixed"), encoding="utf-8")
    assert {p.update for p in plan_for(NINE, X, file).pathways if p.source == "layer8"} == {"fixed"}


def test_what_the_file_says_besides_stays() -> None:
    wiring = {
        "version": 1, "name": "mine", "about": "about: it", "auto": {"depth": 2, "devices": 3},
        "target": {"rule": "lra", "beta": 0.25, "normalize": False}, "frozen": ["layer1"],
        "synapses": {"init": {"normal": 0.01}, "update": {"lra": {"gamma": 0.5}}},
        "overrides": [{"regions": {"phi": "tanh"}, "target": {"kappa": 2}}], "schedule": {"microbatches": 2},
        "placement": {"layer9": 0}, "memory": {"recompute": "layer3"},
        "training": {"lr": 1e-05, "phi": {"tanh": {"epochs": 3}}},
    }  # fmt: skip
    made = design_for(NINE, X, wiring)
    again = load_text(made.text, "x.yaml").wiring.model_dump(exclude_unset=True, by_alias=True)
    first = load_wiring({k: v for k, v in wiring.items() if k != "auto"} | {"pathways": [ALL]}).wiring
    kept = first.model_dump(exclude_unset=True, by_alias=True)
    for key in set(wiring) - {"auto", "schedule"}:
        assert again[key] == kept[key], key
    assert again["schedule"] == {"microbatches": 2, "devices": 3}
    plan = plan_for(NINE, X, wiring)
    assert plan.name == "mine" and plan.training.lr == 1e-05 and plan.schedule.microbatches == 2
    assert {p.update for p in plan.pathways} == {"lra"}


@pytest.mark.parametrize("word", ["output", "last", "rest", "all", "next", "relay"])
def test_regions_may_be_called_like_words_of_selectors(word: str) -> None:
    names = ["a", word, "b", "c"]
    model = nn.Sequential()
    for name in names:
        model.add_module(name, nn.Linear(4, 4))
    plan = plan_for(model, torch.zeros(2, 4), asked(bottlenecks=1))
    assert len(plan.waves) == 3 and {n for w in plan.waves for n in w} == set(names)


@pytest.mark.parametrize("memory", [40_000, 9_000, 4_000])
def test_kernels_get_coarser_until_they_fit(memory: int) -> None:
    free = plan_for(NINE, X, asked(devices=3, depth=2))
    plan = plan_for(NINE, X, asked(devices=3, depth=2, synapse_memory=memory))
    assert memory // 3 < plan.cost.synapse_bytes <= memory < free.cost.synapse_bytes
    assert {p.kernel for p in plan.pathways} <= {"dense", "low_rank"} and any(p.rank for p in plan.pathways)


def test_feature_maps_get_fewer_cells() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 16 * 16, 10),
    )  # fmt: skip
    x = torch.zeros(2, 3, 16, 16)
    sizes = [plan_for(model, x, asked(depth=1)).cost.synapse_bytes]
    for divisor in (2, 8):
        plan = plan_for(model, x, asked(depth=1, synapse_memory=sizes[0] // divisor))
        sizes.append(plan.cost.synapse_bytes)
    assert sizes[0] > sizes[1] > sizes[2] and sizes[1] <= sizes[0] // 2 and sizes[2] <= sizes[0] // 8


class Blocks(nn.Module):
    """A stem, four residual blocks of two layers each, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.stem(x)
        for block in self.blocks:
            z = z + block(z)
        return self.head(z)


def test_blocks_are_regions_and_exact_inside() -> None:
    x = torch.zeros(3, 6)
    made = design_for(Blocks(), x, asked(depth=2, devices=2))
    plan = plan_for(Blocks(), x, asked(depth=2, devices=2))
    assert "granularity: block" in made.text and "inside: backprop" in made.text
    assert [r.name for r in plan.regions] == ["stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "head"]
    assert len(plan.waves) == 3 and all(r.name.startswith("blocks") for r in made.report.relays)
    kernels = {p.target: (p.source, p.kernel, p.update) for p in plan.pathways}
    assert kernels["blocks.3"] == ("head", "adjoint", "tied")  # the block that the output reads hears it exactly
    assert {u for s, k, u in kernels.values() if s == "head" and k != "adjoint"} <= {"local_loss"}
    by_layers = plan_for(Blocks(), x, {**asked(depth=2), "regions": {"granularity": "layer"}})
    assert len(by_layers.regions) == 10
    assert by_layers == plan_for(Blocks(), x, asked(depth=2), granularity="layer")
    inside = plan_for(Blocks(), x, {**asked(depth=2), "inside": {"pathways": [{"from": "output", "to": "all"}]}})
    assert len(inside.regions) == 10 and inside.regions[1].within == ("blocks.0",)


@pytest.mark.parametrize(("groups", "devices", "count"), [("devices", 3, 3), ("devices", 40, 6), (2, 3, 2), (1, 1, 1)])
def test_groups_are_as_many_as_asked_for(groups: Any, devices: int, count: int) -> None:
    made = design_for(Blocks(), torch.zeros(3, 6), asked(groups=groups, devices=devices))
    assert f"groups: {count}" in made.text and f"{count} groups" in made.report.reason
    plan = plan_for(Blocks(), torch.zeros(3, 6), load_text(made.text.replace("schedule", "#"), "x").wiring)
    assert len(plan.regions) == count and {p.update for p in plan.pathways} <= {"local_loss"}


ARCHITECTURES = [n for n in sorted(ZOO) if not n.startswith("chain") or n in ("chain_tanh", "chain_sign")]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gets_a_wiring_that_steps(name: str) -> None:
    model, inputs = ZOO[name]()
    out = model(*inputs)
    classes = out.dim() == 2
    y = torch.zeros(out.shape[0], dtype=torch.long) if classes else torch.zeros_like(out)
    loss_fn = nn.functional.cross_entropy if classes else nn.functional.mse_loss
    program = compile(model, inputs, asked(depth=2), loss_fn=loss_fn)
    assert torch.isfinite(program.step(*inputs, y))


def test_the_choice_is_the_same_every_time() -> None:
    """Whatever order Python's sets of names come in."""
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); from auto import *\n"
        "kernels = Kernels(model(5, 40), 64, 16_000_000, memory=2**21)\n"
        "found = choices(kernels, rates_of(parse_devices('cpu:3')), 8, [Ask(2), Ask(3), Ask(2, count=5)])\n"
        "print([c.found.sources for c in found])"
    )
    runs = (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True,
                       env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."})
        for seed in ("1", "2")
    )  # fmt: skip
    assert len({r.stdout for r in runs}) == 1


# Faults


def fault(model: nn.Module, inputs: Any, wiring: Mapping[str, Any], code: str) -> str:
    with pytest.raises((WiringError, PlacementError)) as caught:
        plan_for(model, inputs, wiring)
    assert [f.code for f in caught.value.faults] == [code]
    assert code not in ("W047", "W048") or code in CODES
    return str(caught.value)


def test_more_bottlenecks_than_the_model_can_have() -> None:
    text = fault(NINE, X, asked(bottlenecks=9), "W047")
    assert "9 bottlenecks among 8 regions" in text and "ask for 4 or fewer" in text
    assert len(plan_for(NINE, X, asked(bottlenecks=4)).waves) == 3
    fault(NINE, X, asked(bottlenecks=5), "W047")
    flat = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    text = fault(flat, torch.zeros(2, 4), asked(bottlenecks=1), "W047")
    assert "1 bottleneck among 1 region that hears an error" in text and "remove 'bottlenecks'" in text
    assert len(plan_for(flat, torch.zeros(2, 4), asked()).waves) == 2  # what the fix says works


def test_nothing_fits_and_the_least_bytes_that_would() -> None:
    text = fault(NINE, X, asked(depth=2, synapse_memory=1000), "W048")
    least = int(text.split("at least ")[1].split(" ")[0])
    assert plan_for(NINE, X, asked(depth=2, synapse_memory=least)).cost.synapse_bytes == least
    fault(NINE, X, asked(depth=2, synapse_memory=least - 1), "W048")


def test_unknown_bottlenecks() -> None:
    assert "a number of bottlenecks is a whole one" in fault(NINE, X, asked(bottlenecks="2.5"), "W020")
    assert "did you mean 'layer5'?" in fault(NINE, X, asked(bottlenecks=["layer2", "layr5"]), "W020")
    assert "it makes the output" in fault(NINE, X, asked(bottlenecks="layer9"), "W021")


def test_contradictions_and_zero_devices() -> None:
    assert "depth 1 has no relays, but 3" in fault(NINE, X, asked(bottlenecks=3, depth=1), "W046")
    assert "'groups' hear only the output" in fault(NINE, X, asked(groups=2, depth=2), "W046")
    assert "at least 1, not 0" in fault(NINE, X, asked(depth=0), "W007")
    assert "asks for 0 devices" in fault(NINE, X, asked(devices=0), "N001")
    with pytest.raises(WiringError, match="W045"):
        load_text("version: 1\nauto:\npathways: [{from: output, to: all}]\n", "both.yaml")
    for auto in (asked(depth=2), asked()):
        fault(NINE, X, {**auto, "pathways": [{"from": "output", "to": "all"}]}, "W045")
    assert "ask for 6 groups or fewer" in fault(Blocks(), torch.zeros(2, 6), asked(groups=9), "W038")


def test_more_devices_than_regions_are_said_to_be_idle() -> None:
    report = design_for(NINE, X, asked(devices=64, depth=1)).report
    assert any("of 64 devices 8 work" in n for n in report.notes)


@pytest.mark.parametrize(
    ("named", "waves", "why"),
    [
        ("layer1", 1, "none lies upstream"),
        (["layer1", "layer2"], 1, "all that lie upstream are bottlenecks themselves"),
        (["layer3", "layer5"], 2, "another relay is cheaper"),
    ],
)
def test_why_nobody_hears_a_bottleneck(named: Any, waves: int, why: str) -> None:
    report = design_for(NINE, X, asked(bottlenecks=named, devices=64)).report
    reasons = [r.reason for r in report.relays if not r.heard_by]
    assert any(r.endswith(f"no region hears it: {why}") for r in reasons), report.relays
    assert len(report.waves) == waves and report.reason.startswith(f"depth {waves}")
    assert waves > 1 or report.reason.startswith("depth 1 of at most 2")
    assert waves > 1 or any(n.startswith("errors go 1 wave deep") for n in report.notes)


def test_a_number_of_devices_is_written_as_a_number() -> None:
    assert "schedule: {devices: 5}" in design_for(NINE, X, asked(devices="5")).text


def test_groups_that_share_weights_are_on_one_device() -> None:
    """Of two groups of a model whose embedding is its read-out neither can be apart from the other."""
    loaded = load_model(str(ROOT / "examples" / "gpt.py"))
    plan = plan_for(loaded.model, loaded.inputs, asked(groups="devices", devices=2))
    assert len(plan.regions) == 3 and {plan.placement.of(r.name) for r in plan.regions} == {0, 1}


@pytest.mark.parametrize("memory", [45_000, 60_000, 10_000_000])
def test_of_the_depths_the_faster_one_is_taken_whatever_its_kernels(memory: int) -> None:
    loaded = load_model(str(ROOT / "examples" / "cnn.py") + ":digits")
    report = design_for(loaded.model, loaded.inputs, asked(devices=2, synapse_memory=memory)).report
    assert report.error_us == min(a.error_us or 0 for a in report.alternatives if not a.note)


def test_a_deeper_graph_that_is_not_there() -> None:
    flat = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    report: Report = design_for(flat, torch.zeros(2, 4), asked(depth=2)).report
    assert report.waves == (("0",),) and report.reason.startswith("depth 1 of at most 2: ")
    one = plan_for(nn.Sequential(nn.Linear(4, 2)), torch.zeros(2, 4), asked())
    assert one.pathways == ()


# The command line


def run(*words: str) -> str:
    result = CliRunner().invoke(main, [*words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_reports_relays_and_alternatives(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.yaml"
    found = json.loads(run(FILE, "--auto", "--devices", "5", "--bottlenecks", "3", "--write-wiring", str(chosen),
                           "--json"))  # fmt: skip
    assert [r["name"] for r in found["auto"]["relays"]] == ["layer8", "layer5", "layer2"]
    rows = {a["label"]: a for a in found["auto"]["alternatives"]}
    assert list(rows) == ["depth 1", "depth 2, 3 relays", "groups 2", "groups 4", "groups 5", "backprop"]
    assert rows["depth 2, 3 relays"]["chosen"] and all(a["step_us"] > 0 for a in rows.values())
    assert rows["backprop"]["error_us"] is None and rows["groups 5"]["waves"] == 1
    again = json.loads(run(FILE, "-w", str(chosen), "--json"))
    assert again["waves"] == found["waves"]
    text = run(FILE, "--auto", "--devices", "5", "--depth", "2")
    assert "32 neurons (the fewest)" in text and "depth 2, 3 relays" in text and "groups 5" in text
    assert "\n1 relay\n" in run(FILE, "--bottlenecks", "1")


def test_options_replace_what_the_file_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "ask.yaml"
    file.write_text("version: 1\nauto: {devices: 3, depth: 1}\ntarget: {beta: 0.5}\n", encoding="utf-8")
    found = json.loads(run(FILE, "-w", str(file), "--bottlenecks", "layer5,layer8", "--depth", "2", "--json"))
    assert [r["name"] for r in found["auto"]["relays"]] == ["layer8", "layer5"]
    assert len(found["schedule"]["devices"]) == 3 and found["regions"][0]["target"]["beta"] == 0.5


@pytest.mark.parametrize("words", [(), ("--depth", "1")])
def test_a_file_beside_the_request_is_found(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "inner.yaml").write_text("version: 1\npathways: [{from: output, to: all}]\n", encoding="utf-8")
    file = tmp_path / "request.yaml"
    file.write_text("version: 1\nauto: {devices: 2}\nregions: {granularity: {groups: 2}}\ninside: inner.yaml\n",
                    encoding="utf-8")  # fmt: skip
    found = json.loads(run(FILE, "-w", str(file), *words, "--json"))
    assert any(r["within"] for r in found["regions"])


def test_faults_of_a_file_name_its_line_also_with_options(tmp_path: Path) -> None:
    file = tmp_path / "eight.yaml"
    file.write_text("version: 1\nauto:\n  bottlenecks: 8\n", encoding="utf-8")
    result = CliRunner().invoke(main, [FILE, "-w", str(file), "--depth", "2"])
    assert result.exit_code == 2 and "eight.yaml:3:16" in result.output, result.output
    result = CliRunner().invoke(main, [FILE, "-w", str(file), "--bottlenecks", "7"])
    assert result.exit_code == 2 and "error[W047] --bottlenecks" in result.output, result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--auto", "-w", "depth1"), "leave one of the two out"),
        (("--write-wiring", "x.yaml"), "say --auto"),
        (("--depth", "1", "--bottlenecks", "3"), "error[W046]"),
        (("--depth", "0"), "error[W007]: --depth must be at least 1"),
        (("--groups", "many"), "write '--groups devices'"),
        (("--synapse-memory", "2 gigs"), "error[W005]"),
        (("--auto", "--devices", "0"), "error[N001]"),
    ],
)
def test_what_cannot_be_asked_for_ends_with_status_2(words: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(main, [FILE, *words])
    assert result.exit_code == 2 and said in result.output, result.output


def test_errors_of_finished_runs_stand_beside_their_wiring(tmp_path: Path) -> None:
    wirings = (asked(depth=1), asked(depth=2), asked(groups=2))
    plans = [plan_for(Blocks(), torch.zeros(3, 6), w) for w in wirings]
    for k, (plan, error) in enumerate([(plans[0], 3.0), (plans[2], 5.0), (plans[2], 7.0)]):
        folder = tmp_path / f"run{k}"
        folder.mkdir()
        (folder / "plan.txt").write_text(str(plan), encoding="utf-8")
        (folder / "log.jsonl").write_text(json.dumps({"epoch": 1, "test_error": error}) + "\n", encoding="utf-8")
    (tmp_path / "plan.txt").write_text("no plan", encoding="utf-8")
    runs = runs_in(tmp_path)
    assert [error_of(p, runs) for p in plans] == [(3.0, 1), (None, 0), (6.0, 2)]
    assert isinstance(plans[0], Plan)
