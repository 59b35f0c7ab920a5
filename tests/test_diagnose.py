"""`reclra-compile diagnose`: what is measured, against plain computations; what is warned of, provoked for real."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from click.testing import CliRunner, Result
from models import build
from rich.console import Console
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.cli.diagnose_view import regions_table
from reclra_compile.cli.main import main
from reclra_compile.diagnose.advice import CODES, findings
from reclra_compile.diagnose.facts import Diagnosis, Finding, Probe, RegionFacts
from reclra_compile.diagnose.feasible import target_facts
from reclra_compile.diagnose.measure import Bench, angle, dead, synapse_norms
from reclra_compile.diagnose.page import to_html
from reclra_compile.diagnose.plot import to_svg
from reclra_compile.diagnose.words import COLUMNS, grouped, row, short
from reclra_compile.ir import Region, Target
from reclra_compile.runtime.program import Program
from reclra_compile.spec.load import shipped

DEEP = str(Path(rc.__file__).parent.parent / "examples" / "mlp_digits.py")
SMALL = """
import torch
from torch import nn
from reclra_compile.layers import Sign


def net(phi, scale=1.0):
    made = nn.Sequential(nn.Linear(64, 32), phi(), nn.Linear(32, 32), phi(), nn.Linear(32, 10))
    with torch.no_grad():
        for p in made.parameters():
            p *= scale
    return made


def relu():
    return net(nn.ReLU)


def sign():
    return net(Sign)


def steep():
    return net(nn.Tanh, 60.0)


build_model = relu
example_inputs = torch.zeros(4, 64)
"""


class Convolutions(nn.Module):
    """conv1 (batch norm, pooling behind φ), a residual block of two convolutions with dropout, and `out`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm2, self.drop, self.out = nn.BatchNorm2d(6), nn.Dropout(0.3), nn.Linear(6 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.norm1(self.conv1(x))), 2)
        x = torch.relu(x + self.norm2(self.b(self.drop(torch.relu(self.a(x))))))
        result: Tensor = self.out(x.flatten(1))
        return result


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "small.py").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECLRA_DATA", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def model_and_inputs(name: str) -> tuple[nn.Module, Tensor]:
    """A model of the collection, or the convolutional one."""
    torch.manual_seed(0)
    if name == "convolutions":
        return Convolutions(), torch.randn(8, 1, 8, 8)
    return build(name, batch=8)


def bench(name: str, wiring: Any, rate: float = 0.01, **options: Any) -> Bench:
    """A bench with a program in training mode; its labels are drawn."""
    model, x = model_and_inputs(name)
    model.train()
    program = rc.compile(model, x, wiring, **options)
    return Bench(program, ((x,), torch.randint(0, 3, (len(x),))), lambda inputs: program.model(*inputs), rate)


def measured(made: Bench) -> Probe:
    return made.probe(0, made.rate, synapse_norms(made.program))


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["mlp", "residual", "branching", "batchnorm", "dropout", "shared", "convolutions"])
def test_backprop_is_at_no_angle_to_the_gradient(name: str) -> None:
    for r in measured(bench(name, "backprop")).regions:
        assert (r.angle is None) == (r.update is None)
        if r.angle is not None and r.update is not None:
            assert r.angle < 0.01, r
            assert r.update == pytest.approx(r.gradient, rel=1e-4)


def test_the_angle_is_that_of_the_two_gradients_taken_apart() -> None:
    made = bench("dropout", "feedback_alignment")
    program, (inputs, y) = made.program, made.batch
    random = torch.get_rng_state()
    probe = measured(made)
    assert torch.equal(torch.get_rng_state(), random)
    program.step(*inputs, y)
    own = torch.cat([p.grad.flatten() for p in program.model[0].parameters()])  # type: ignore[index,union-attr]
    program.zero_grad()
    torch.set_rng_state(random)
    F.cross_entropy(program.model(*inputs), y).backward()
    true = torch.cat([p.grad.flatten() for p in program.model[0].parameters()])  # type: ignore[index,union-attr]
    expected = math.degrees(math.acos(float(F.cosine_similarity(own.double(), true.double(), dim=0))))
    assert expected > 5.0
    assert probe.of("fc1").angle == pytest.approx(expected, abs=1e-3)


def test_angles_of_known_vectors() -> None:
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert angle(a, torch.tensor([0.0, 3.0], dtype=torch.float64)) == pytest.approx(90.0)
    assert angle(a, -a) == pytest.approx(180.0)
    assert angle(a, 2 * a) == pytest.approx(0.0)
    assert angle(a, 0 * a) is None


@pytest.mark.parametrize("wiring", ["depth1", "kolen_pollack", "backprop"])
@pytest.mark.parametrize("name", ["convolutions", "dropout"])
def test_a_probe_leaves_no_trace(name: str, wiring: str) -> None:
    made = bench(name, wiring)
    program, (inputs, y) = made.program, made.batch
    program.step(*inputs, y)
    grads = {n: p.grad for n, p in program.model.named_parameters()}
    kept = {n: g.clone() for n, g in grads.items() if g is not None}
    before = [{n: v.clone() for n, v in m.state_dict().items()} for m in (program.model, program.synapses)]
    random = torch.get_rng_state()
    measured(made)
    assert torch.equal(torch.get_rng_state(), random)
    for old, module in zip(before, (program.model, program.synapses), strict=True):
        assert old.keys() == module.state_dict().keys()
        assert all(torch.equal(old[n], v) for n, v in module.state_dict().items())
    for n, p in program.model.named_parameters():
        assert p.grad is grads[n]
        assert p.grad is None or torch.equal(p.grad, kept[n])


def test_training_is_the_same_with_and_without_probes() -> None:
    def losses(*arguments: str) -> list[float]:
        report = document("-w", "depth1", "--epochs", "1", "--steps", "8", *arguments)
        return [p["loss"] for p in report["steps"]]

    eight = losses()  # probes after 0, 2, 4, 6, 8 steps of the same schedule
    assert len(eight) == 5 and len(set(eight)) == 5
    assert losses("--steps", "4")[-1] == eight[2]


CHAIN = {
    "version": 1, "name": "chain", "target": {"rule": "lra", "beta": 0.3, "normalize": True},
    "pathways": [{"from": "next", "to": "all"}], "synapses": {"init": {"fan_in": 2.0}, "update": "kolen_pollack"},
}  # fmt: skip
READ = {**CHAIN, "pathways": [{"from": "output", "to": "all"}], "synapses": {"update": "local_readout"}}


@pytest.mark.parametrize(
    ("name", "wiring", "granularity"),
    [("mlp", "depth1", None), ("mlp", CHAIN, None), ("dropout", "depth2", None), ("residual", "depth1_paper", None),
     ("branching", "depth1", None), ("convolutions", "depth1_local", None), ("convolutions", "blocks", None),
     ("shared", "lra_e", None), ("mlp", "depth1_literal", None), ("batchnorm", "depth2_gap2", None)],
)  # fmt: skip
def test_targets_are_those_of_the_program(name: str, wiring: Any, granularity: str | None) -> None:
    """‖z − y‖² from jump and activity is the region's term of D(Θ), which the program computes by itself."""
    made = bench(name, wiring, granularity=granularity)
    probe, seen = measured(made), 0
    for region in made.program.plan.regions:
        r = probe.of(region.name)
        if r.target is not None and r.activity is not None and r.discrepancy is not None and r.target.jump > 1e-6:
            assert (r.target.jump * r.activity) ** 2 * region.size == pytest.approx(r.discrepancy, rel=2e-3), r
            seen += 1
    assert seen >= (1 if wiring == "blocks" else 2)


def test_error_norms_and_targets_by_hand() -> None:
    made = bench("mlp", READ)
    program, ((x,), y) = made.program, made.batch
    with torch.no_grad():
        for p in program.synapses.parameters():
            p.normal_(0.0, 1.0, generator=torch.Generator().manual_seed(3))
    r = measured(made).of("fc2")
    with torch.no_grad():
        m: Any = program.model
        h = m.fc2(torch.relu(m.fc1(x)))
        z, out = torch.relu(h), program.model(x)
        e_L = torch.softmax(out, 1) - F.one_hot(y, 3)
        E = next(s for n, s in program.synapses.named_children() if "fc2" in n).E_T.detach()
        target = torch.relu(h - 0.3 * (e_L @ E))
    assert r.activity == pytest.approx(float(z.square().mean().sqrt()), rel=1e-5)
    assert r.error == pytest.approx(float(((z - target) / 0.3).square().mean().sqrt()), rel=1e-4)
    assert r.relative_error == pytest.approx(r.error / r.activity)  # type: ignore[operator]
    assert r.target is not None
    assert r.target.jump == pytest.approx(float((z - target).norm() / z.norm()), rel=1e-4)
    assert r.target.saturated == pytest.approx(float((target == 0).float().mean()), abs=1e-6)
    assert r.target.pushed == pytest.approx(float(((target == 0) & (z > 0)).float().mean()), abs=1e-6)
    assert r.synapse_norm == pytest.approx(float(E.norm()), rel=1e-5)
    assert r.readout_loss == pytest.approx(float(F.cross_entropy(z @ E.t() + _bias(program, "fc2"), y)), rel=1e-5)


def _bias(program: Program, region: str) -> Tensor:
    found: Tensor = next(s for n, s in program.synapses.named_children() if region in n).b.detach()  # type: ignore[assignment]
    return found


def test_what_a_step_removes_of_the_mismatch_by_hand() -> None:
    made = bench("mlp", CHAIN, rate=0.05)
    program, ((x,), y) = made.program, made.batch
    t = measured(made).of("fc5").target
    assert t is not None
    program.step(x, y)
    m: Any = program.model
    with torch.no_grad():
        z = x
        for name in ("fc1", "fc2", "fc3", "fc4"):
            z = torch.relu(m.get_submodule(name)(z))
        E = next(s for n, s in program.synapses.named_children() if "fc5" in n).E_T
        before = m.fc5(z)
        e_L = torch.softmax(program.model(x), 1) - F.one_hot(y, 3)
        target = torch.relu(before - 0.3 * (e_L @ E))
        after = torch.relu(F.linear(z, m.fc5.weight - 0.05 * m.fc5.weight.grad, m.fc5.bias - 0.05 * m.fc5.bias.grad))
        change, wanted = after - torch.relu(before), target - torch.relu(before)
    assert t.aim == pytest.approx(float(F.cosine_similarity(change.flatten(), wanted.flatten(), dim=0)), abs=1e-4)
    assert t.removed == pytest.approx(1.0 - float((wanted - change).square().sum() / wanted.square().sum()), abs=1e-4)
    assert t.aim > 0.0


def test_rounding_is_seen_where_beta_is_tiny() -> None:
    g = torch.Generator().manual_seed(0)
    h, d = torch.randn(16, 8, generator=g), torch.randn(16, 8, generator=g)

    def rounding(beta: float) -> float:
        return target_facts(Target("r", "lra", beta=beta), torch.tanh, torch.tanh(h), h, d, None).rounding

    assert rounding(1e-2) < 1e-4
    assert rounding(1e-7) > 0.2


def test_dead_units_are_counted_by_unit_or_channel() -> None:
    z = torch.rand(8, 10)
    z[:, :3] = 0.0
    z[:, 3] = 0.7
    flat = Region("r", "Linear", "relu", (), (), (10,))
    assert dead(z, flat) == pytest.approx(0.4)
    maps = torch.rand(8, 4, 5, 5)
    maps[:, 1] = 0.0
    maps[:, 2, 0, 0] = 0.0  # one dead cell is no dead channel
    assert dead(maps, replace(flat, shape=(4, 5, 5))) == pytest.approx(0.25)
    assert dead(maps.movedim(1, -1), replace(flat, shape=(5, 5, 4), channel_axis=2)) == pytest.approx(0.25)


# ── what is warned of ────────────────────────────────────────────────────────────────────────────────────────────


def diagnose(*arguments: str, model: str = "small.py") -> Result:
    return CliRunner().invoke(main, ["diagnose", model, *arguments], catch_exceptions=False)


def document(*arguments: str, model: str = "small.py") -> dict[str, Any]:
    done = diagnose(*arguments, "--json", model=model)
    assert done.exit_code == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def wiring(name: str, **changes: Any) -> str:
    """A shipped wiring with some sections replaced, as a file."""
    source = Path(rc.__file__).parent.parent / "wiring" / f"{name}.yaml"
    Path(f"{name}.yaml").write_text(yaml.safe_dump({**yaml.safe_load(source.read_text()), **changes}))
    return f"{name}.yaml"


def lra(**options: Any) -> dict[str, Any]:
    return {"rule": "lra", "beta": 0.01, "normalize": True, **options}


PROVOKED: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...], str]] = {
    # code: model, wiring, changes, arguments, and a word of the suggestion
    "G001": ("small.py", "depth1", {}, ("--lr", "1e30", "--optimizer", "sgd", "--steps", "6"), "--lr"),
    "G002": ("small.py", "depth1", {}, ("--lr", "1", "--steps", "20"), "--lr"),
    "G003": ("small.py", "depth1_paper", {"synapses": {"init": {"fan_in": 1.0}, "update": {"lra": {"gamma": 1.0}}}},
             ("--lr", "0.02", "--steps", "60"), "local_readout"),
    "G004": (DEEP, "depth1", {}, ("--lr", "0.05", "--steps", "60"), "--weight-decay"),
    "G005": ("small.py", "depth1", {"target": lra(beta=300.0)}, ("--steps", "20"), "target.beta: "),
    "G006": ("small.py", "depth1", {"target": lra(beta=1e-7)}, ("--steps", "20"), "target.beta: 0.01"),
    "G007": ("small.py:steep", "depth1", {}, ("--steps", "4"), "initial weights"),
    "G008": ("small.py", "lra_e", {}, ("--lr", "0.5", "--steps", "40"), "--lr"),
    "G009": ("small.py", "direct_feedback_alignment", {}, ("--steps", "2"), "kolen_pollack"),
    "G011": ("small.py", "lra_e", {"target": lra(beta=0.001, normalize=False)}, ("--steps", "4"), "normalize: true"),
    "G012": ("small.py", "feedback_alignment", {"synapses": {"init": {"fan_in": 3000.0}, "update": "fixed"}},
             ("--steps", "4"), "init"),
    "G013": ("small.py", "depth1", {}, ("--lr", "0.02", "--readout-rate", "0.001", "--steps", "60"), "readout_rate"),
    "G014": ("small.py:sign", "lra_e", {"overrides": []}, ("--steps", "4"), "phi: tanh"),
    "G015": ("small.py", "depth1", {"synapses": {"init": "zeros", "update": "fixed"}}, ("--steps", "4"), "pathway"),
}  # fmt: skip


@pytest.mark.parametrize("code", sorted(set(CODES) - {"G010"}))
def test_every_warning_can_be_provoked(code: str) -> None:
    model, name, changes, arguments, word = PROVOKED[code]
    report = document("-w", wiring(name, **changes), *arguments, model=model)
    mine = [w for w in report["warnings"] if w["code"] == code]
    assert mine, report["warnings"]
    assert word in mine[0]["suggestion"]
    assert all(w["message"] and w["suggestion"] for w in report["warnings"])


def test_synapses_that_point_backwards_are_warned_of() -> None:
    exact = {**CHAIN, "target": lra(), "synapses": {"init": {"transpose": 1.0}, "update": "fixed"}}
    for sign, wanted in ((1.0, set()), (-1.0, {"fc1", "fc3", "fc5"})):
        made = bench("mlp", exact)
        with torch.no_grad():
            for p in made.program.synapses.parameters():
                p.mul_(sign)
        probe = replace(measured(made), step=1)
        plan = made.program.plan
        found = findings(Diagnosis(plan, plan.training, "drawn", 8, (probe, probe)))
        assert {f.region for f in found if f.code == "G010"} == wanted


@pytest.mark.parametrize("name", ["backprop", "depth1", "depth2", "lra_e", "kolen_pollack"])
def test_sound_wirings_give_no_warnings_once_they_learn(name: str) -> None:
    assert document("-w", name, "--steps", "120")["warnings"] == []


OTHER = {"blocks_nested", "equilibrium_propagation", "feedback_alignment_bp", "groups", "sign_symmetry",
         "target_propagation", "weight_mirror"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(OTHER & set(shipped())))
def test_wirings_of_every_kind_can_be_diagnosed(name: str) -> None:
    report = document("-w", name, "--steps", "1")
    assert any(r["angle"] is not None for r in report["regions"])
    assert report["regions"][-1]["error"] is not None


def test_the_suggested_beta_ends_the_warning() -> None:
    first = document("-w", wiring("depth1", target=lra(beta=300.0)), "--steps", "20")
    beta = min(float(w["suggestion"].partition(": ")[2]) for w in first["warnings"] if w["code"] == "G005")
    second = document("-w", wiring("depth1", target=lra(beta=beta)), "--steps", "20")
    assert "G005" not in {w["code"] for w in second["warnings"]}


def test_findings_are_grouped_by_code_with_the_worst_first() -> None:
    found = [Finding("G008", name, f"{name} says", "do") for name in ("a", "b", "c", "d", "e", "f")]
    (one,) = grouped(found)
    assert (one.where, one.message) == ("a (also b, c, d, e and 1 more): ", "a says")


# ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_json_document() -> None:
    report = document("-w", "depth1", "--steps", "8")
    assert report["version"] == 1 and report["wiring"] == "depth1" and report["stopped"] is None
    assert [p["step"] for p in report["steps"]] == [0, 2, 4, 6, 8]
    assert report["regions"] == report["steps"][-1]["regions"]
    hidden, output = report["regions"][0], report["regions"][-1]
    assert {"name", "angle", "error", "relative_error", "dead", "synapse_norm", "target", "discrepancy"} <= set(hidden)
    assert {"jump", "saturated", "pushed", "rounding", "aim", "removed"} == set(hidden["target"])
    assert output["target"] is None and output["angle"] == pytest.approx(0.0, abs=0.01)


def test_fewer_steps_than_quarters_are_probed_once_each() -> None:
    assert [p["step"] for p in document("--steps", "1")["steps"]] == [0, 1]


def test_the_report_and_its_picture() -> None:
    done = diagnose("-w", "depth1", "--steps", "4", "--out", "a.svg")
    assert done.exit_code == 0 and "regions after step 4" in done.stdout and "picture written to a.svg" in done.stdout
    assert "–" in next(line for line in done.stdout.splitlines() if line.startswith("4 "))
    root = ET.fromstring(Path("a.svg").read_text(encoding="utf-8"))
    texts = {t.text for t in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"0", "2", "4 (output)", "dead units"} <= texts


@pytest.mark.parametrize("suffix", [".html", ".png"])
def test_other_pictures(suffix: str) -> None:
    if suffix == ".png":
        pytest.importorskip("resvg_py")
    assert diagnose("--steps", "2", "--out", f"a{suffix}").exit_code == 0
    assert Path(f"a{suffix}").stat().st_size > 3000


def test_mistakes_are_reported_before_training(folder: Path) -> None:
    for out, code in (("a.gif", "V002"), ("nowhere/a.svg", "V004")):
        done = diagnose("--out", out)
        assert done.exit_code == 2 and f"error[{code}]" in done.stderr
    done = diagnose("-w", "deph1", "--json")
    assert done.exit_code == 2 and json.loads(done.stdout)["errors"]
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".py" and p.name != "__pycache__") == []


def diagnosis(regions: int, *facts: RegionFacts) -> Diagnosis:
    """A made-up diagnosis of a chain, whose regions have the same facts at both probes."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(regions)))
    plan = rc.compile(model, torch.zeros(2, 4), "backprop").plan
    given = {f.name: f for f in facts}
    seen = tuple(given.get(r.name, RegionFacts(r.name)) for r in plan.regions)
    probes = tuple(Probe(s, 1.0, 0.1, 1.0, seen) for s in (0, 10))
    return Diagnosis(plan, plan.training, "digits", 2, probes)


def test_pictures_bear_what_is_missing_and_what_is_not_finite() -> None:
    made = diagnosis(30, RegionFacts("3", angle=math.nan, error=math.inf, activity=0.0, dead=1.0))
    text = to_svg(made)
    ET.fromstring(text)
    assert "nan" not in text and "inf" not in text and "and 12 between them" in text and "no updates" in text
    assert "<script" not in to_html(made, findings(made))


def test_a_narrow_screen_goes_without_some_columns() -> None:
    facts = RegionFacts("0", 12.3, 1.0, 1.0, 0.0123, 0.4, 0.5, 12.3, 123.0, 0.5, 1.2e-5)
    made = diagnosis(2, facts)
    for room, missing in ((None, set()), (79, {"growth"}), (60, {"growth", "error/z"})):
        out = Console(width=room or 200)
        table = regions_table(made, room)
        titles = {str(c.header) for c in table.columns}
        assert {title for title, _ in COLUMNS} - titles >= missing
        assert {"region", "angle", "jump", "dead", "‖E‖"} <= titles
        assert room is None or out.measure(table).maximum <= room


def test_names_in_the_page_are_text() -> None:
    made = diagnosis(1)
    hostile = replace(made, plan=replace(made.plan, name="<script>alert(1)</script>"))
    found = [Finding("G008", "<b>", "<i>", "&")]
    page = to_html(hostile, found)
    assert "<script>" not in page and "<b></b>" not in page and "&lt;i&gt;" in page


def test_numbers_are_short() -> None:
    assert [short(v) for v in (None, 0.0, 1.23456, 1234.4, 12345.0, 0.00012, math.inf)] == [
        "–", "0", "1.23", "1234", "12345", "1.2e-4", "inf",
    ]  # fmt: skip
    assert len(row(RegionFacts("r"))) == len(COLUMNS)


def test_a_wiring_for_devices_is_diagnosed_on_one(folder: Path) -> None:
    wiring = yaml.safe_load(shipped()["depth1"].read_text(encoding="utf-8"))
    Path("one.yaml").write_text(yaml.safe_dump(wiring))
    Path("two.yaml").write_text(yaml.safe_dump({**wiring, "schedule": {"devices": 2, "microbatches": 4}}))
    one, two = (diagnose("-w", f"{name}.yaml", "--steps", "2", "--json") for name in ("one", "two"))
    assert (one.exit_code, one.stdout) == (0, two.stdout)
