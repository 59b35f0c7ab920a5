"""`init` writes a wiring that loads, fits its model, says the names of its regions, and trains as it is."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from architectures import ARCHITECTURES
from click.testing import CliRunner, Result
from conftest import ROOT
from models import MODELS, build

import reclra_compile as rc
from reclra_compile.auto.write import flow
from reclra_compile.cli.main import main
from reclra_compile.frontend.load_model import load_model
from reclra_compile.spec.load import load_wiring
from reclra_compile.spec.schema import Wiring, keys_of
from reclra_compile.starter import make
from reclra_compile.starter.choose import Start
from reclra_compile.starter.make import Starter, starter
from reclra_compile.starter.write import text_of

EXAMPLES = {"mlp_digits.py": "depth2", "cnn.py": "depth1_local"}
LONG = {"gpt.py": "groups", "lstm.py": "depth1_local", "tabular.py": "depth2", "autoencoder.py": "depth2",
        "mlp_mixer.py": "groups", "vit.py": "groups", "resnet_cifar.py:conv16": "groups",
        "figure1.py": "depth2"}  # fmt: skip
SEVERAL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return {"first": self.a(h), "second": self.b(h)}

model = Net()
example_inputs = torch.zeros(2, 4)
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    """A command in this process; an exception other than an exit is a failure."""
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def started(*arguments: str) -> str:
    """The text that `init` writes to standard output."""
    result = run("init", *arguments, "--out", "-")
    assert result.exit_code == 0, result.output
    return result.stdout


def is_true_of(made: Starter, text: str) -> None:
    """The text reads back as the sections that were planned, and lists the regions."""
    assert yaml.safe_load(text) == {"version": 1, **{k: v for k, v in made.sections.items() if v not in ({}, [])}}
    assert max(map(len, text.splitlines())) <= 130
    for region in made.plan.regions:
        row = rf"^#\s+(\d+|-)\s+{re.escape(flow(region.name))}\s.*\s{region.parameter_count:,}$"
        assert re.search(row, text, re.MULTILINE), region.name


def trains(name: str, wiring: str) -> None:
    """Two steps on random data change the loss, and leave it finite."""
    loaded = load_model(str(ROOT / "examples" / name))
    torch.manual_seed(0)
    data = loaded.extra("data")
    if data is None:
        x, y = torch.randn_like(loaded.tensors[0]), torch.randint(10, (len(loaded.tensors[0]),))
        batch: tuple[torch.Tensor, ...] = (x, y)
    else:
        inputs, y = (data() if callable(data) else data)["train"]
        batch = (*(t[:8] for t in (inputs if isinstance(inputs, tuple) else (inputs,))), y[:8])
    loss_fn = loaded.extra("loss_fn") or torch.nn.functional.cross_entropy
    program = rc.compile(loaded.model, loaded.inputs, wiring, loss_fn=loss_fn)
    optimizer = torch.optim.SGD(program.parameters(), lr=0.1)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        losses.append(float(program.step(*batch)))
        optimizer.step()
    assert all(torch.tensor(losses).isfinite()) and losses[0] != losses[1]


@pytest.mark.parametrize(
    ("name", "wiring"), [*EXAMPLES.items(), *(pytest.param(*i, marks=pytest.mark.slow) for i in LONG.items())]
)
def test_examples_get_a_wiring_that_fits_and_trains(name: str, wiring: str) -> None:
    model = str(ROOT / "examples" / name)
    report = json.loads(run("init", model, "--out", "my.yaml", "--json").stdout)
    assert (report["file"], report["wiring"], report["refused"]) == ("my.yaml", wiring, [])
    text = Path("my.yaml").read_text()
    assert yaml.safe_load(text) == {k: v for k, v in report["sections"].items() if v not in ({}, [])}
    assert all(f"#   {command}\n" in text for command in report["commands"])
    assert report["why"].rstrip(".").split()[-1] in text
    words = shlex.split(report["commands"][0])
    assert words[:2] == ["reclra-compile", "check"]
    checked = run(*words[1:])
    assert (checked.exit_code, checked.stdout) == (0, f"my.yaml: sound and fits {model}\n")
    trains(name, "my.yaml")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("batchnorm", "residual") else pytest.mark.slow) for n in MODELS]
)
def test_small_models(name: str) -> None:
    module, x = build(name)
    made = starter(module, x, "mine")
    is_true_of(made, text_of(made, ["a"], ["b"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name: str) -> None:
    module, x = ARCHITECTURES[name]()
    made = starter(module, x, "mine")
    assert made.start.wiring in ("groups", "depth1_local", "depth2", "depth1"), made.refused
    text = text_of(made, ["a"], ["b"])
    is_true_of(made, text)
    if made.start.wiring == "groups":
        said = text.replace("\n# ", " ")
        assert f"they would be {', '.join(map(flow, made.blocks))}." in said
        blocks = starter(module, x, "mine", wiring="blocks").plan.regions
        assert [r.name for r in blocks] == list(made.blocks)


def test_every_key_is_explained_and_examples_load_when_they_are_uncommented() -> None:
    text = started(str(ROOT / "examples" / "mlp_digits.py"))
    assert [k for k in keys_of(Wiring) if k != "auto" and not re.search(rf"^(# )?{k}: ", text, re.MULTILINE)] == []
    unused = re.findall(r"^# (\w+): (?=[^\n]*\n(?:\n|$))", text, re.MULTILINE)
    assert {"about", "inside", "frozen", "memory", "schedule", "placement", "synapses", "overrides"} <= set(unused)
    for key in unused:
        used = re.sub(rf"^# ({key}: [^\n]*\n(?:\n|\Z))", r"\1", text, flags=re.MULTILINE)
        Path("used.yaml").write_text(used)
        assert key in load_wiring("used.yaml").wiring.model_fields_set, key


def test_nothing_is_written_over_unless_it_is_asked_for() -> None:
    model = str(ROOT / "examples" / "mlp_digits.py")
    Path("mlp_digits.yaml").write_text("mine")
    refused = run("init", model)
    assert refused.exit_code == 2 and refused.stdout == ""
    assert "error[I001] mlp_digits.yaml: this file is there already\n  fix: name another with --out" in refused.stderr
    assert json.loads(run("init", model, "--json").stdout)["errors"][0]["code"] == "I001"
    assert Path("mlp_digits.yaml").read_text() == "mine"
    assert "wiring written to mlp_digits.yaml" in run("init", model, "--force").stdout
    assert "name: mlp_digits\n" in Path("mlp_digits.yaml").read_text()
    assert "error[F001]" in run("init", model, "-o", "nowhere/my.yaml").stderr


def test_a_wiring_and_a_granularity_can_be_asked_for() -> None:
    model = str(ROOT / "examples" / "mlp_digits.py")
    data = yaml.safe_load(started(model, "--wiring", "lra_e", "--granularity", "groups=2"))
    assert data["pathways"] == load_shipped("lra_e")["pathways"]
    assert data["regions"] == {"granularity": {"groups": 2}}
    for words, code in (("--granularity groups", "W040"), ("--wiring nothing", "W004"), ("--devices none:2", "N002")):
        assert f"error[{code}]" in run("init", model, "-o", "-", *words.split()).stderr


def load_shipped(name: str) -> dict[str, object]:
    """A shipped wiring as plain data."""
    return dict(yaml.safe_load((ROOT / "wiring" / f"{name}.yaml").read_text()))


def test_for_devices_the_compiler_chooses() -> None:
    text = started(str(ROOT / "examples" / "figure1.py"), "--devices", "5", "--microbatches", "2")
    data = yaml.safe_load(text)
    assert data["schedule"] == {"devices": 5, "microbatches": 2}
    assert data["pathways"][0]["to"] == [f"layer{k}" for k in range(8, 0, -1)]
    said = text.replace("\n# ", " ")
    assert "its pathways are chosen by the compiler" in said and "depth 1 takes" in said


def test_several_outputs_unbuilt_weights_and_names_of_their_own() -> None:
    Path("two heads.py").write_text(SEVERAL)
    assert "error[M202]" in run("init", "two heads.py").stderr
    result = run("init", "two heads.py:model", "--output", "second", "--meta")
    assert result.exit_code == 0, result.output
    commands = [line[2:] for line in result.stdout.splitlines() if line.startswith("  reclra-compile")]
    assert commands[0] == "reclra-compile check 'two heads.yaml' 'two heads.py:model' --output second --meta"
    assert "--unreached freeze" in commands[2] and "--unreached" not in commands[0]
    assert "warning[M301]" in result.stdout
    checked = run(*shlex.split(commands[0])[1:])
    assert checked.exit_code == 0 and checked.stdout.startswith("two heads.yaml: sound and fits"), checked.output
    assert yaml.safe_load(Path("two heads.yaml").read_text())["name"] == "two_heads"


def test_a_model_of_one_layer() -> None:
    Path("one.py").write_text("import torch\nmodel = torch.nn.Linear(4, 3)\nexample_inputs = torch.zeros(2, 4)\n")
    assert "the output is the model's only layer, and learns from the loss itself" in json.loads(
        run("init", "one.py", "--out", "my.yaml", "--json").stdout
    )["why"]


def test_where_the_best_does_not_fit_the_next_is_taken_and_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("bad.yaml").write_text("version: 1\npathways:\n  - {from: output, to: nowhere}\n")
    tried = (Start("bad.yaml", "first"), Start("depth1", "second"))
    monkeypatch.setattr(make, "starts", lambda *_: tried)
    text = started(str(ROOT / "examples" / "mlp_digits.py")).replace("\n# ", " ")
    assert "it starts as depth1. Why: second" in text
    assert "bad.yaml does not fit this model: no region 'nowhere'" in text
    monkeypatch.setattr(make, "starts", lambda *_: tried[:1])
    assert "error[W020] bad.yaml:3:24" in run("init", str(ROOT / "examples" / "mlp_digits.py")).stderr
