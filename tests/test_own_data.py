"""Data and a loss that a model's file brings: what is measured, what is refused, and that runs with it resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from torch import nn

from reclra_compile.cli.main import main
from reclra_compile.train.measure import classes_axis, error_percent, mean_loss

MODEL = (
    "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
    "model = nn.Linear(4, 3)\nexample_inputs = torch.zeros(2, 4)\n"
)
GOOD = (
    "torch.manual_seed(0)\n"
    "data = {'train': (torch.randn(6, 4), torch.zeros(6).long()), 'test': (torch.randn(3, 4), torch.zeros(3).long())}\n"
)
TARGETS = ("torch.zeros(6).long()", "torch.zeros(3).long()")
TWO = '''
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.fc = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, codes, unused=None, numbers=None):
        return self.fc(self.table(codes) + numbers)

model = Two()
codes, numbers = torch.arange(12) % 5, torch.randn(12, 4)
y = codes % 3
'''


def invoke(file: Path, *options: str) -> Result:
    arguments = ["train", str(file), "--epochs", "1", "--wiring", "backprop", *options]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def train(tmp_path: Path, text: str, *options: str) -> dict:
    file = tmp_path / "net.py"
    file.write_text(text)
    result = invoke(file, *options, "--json")
    assert result.exit_code == 0, result.stdout
    return json.loads(result.stdout)


def failing(tmp_path: Path, text: str, *options: str) -> str:
    file = tmp_path / "net.py"
    file.write_text(MODEL + text)
    result = invoke(file, *options)
    assert result.exit_code == 2, result.output
    return result.stderr


def targets(train: str, test: str) -> str:
    """GOOD with other targets."""
    return GOOD.replace(TARGETS[0], train).replace(TARGETS[1], test)


@pytest.mark.parametrize(("text", "code", "words"), [
    ("data = 3\n", "D013", "is a int"),
    ("data = {'train': (torch.zeros(2, 4), torch.zeros(2))}\n", "D013", "has train"),
    ("data = {'train': 1, 'test': 2}\n", "D013", "not a pair"),
    ("data = {'train': ([1], 2), 'test': ([1], 2)}\n", "D013", "other than tensors"),
    (GOOD + "data['extra'] = data['test']\n", "D013", "unknown part 'extra'"),
    (GOOD + "data['test'] = (torch.zeros(0, 4), torch.zeros(0).long())\n", "D013", "`data['test']` has no samples"),
    (GOOD + "data['test'] = ({'x': data['test'][0]}, data['test'][1])\n", "D013", "names its inputs otherwise"),
    (GOOD.replace("torch.randn(6, 4)", "torch.randn(5, 4)"), "D006", "5 and 6 samples"),
    (GOOD.replace("torch.randn(6, 4)", "torch.randn(6, 5)"), "D010", "(5,)"),
    (GOOD.replace("torch.randn(3, 4)", "torch.randn(3, 5)"), "D010", "(5,)"),
    (GOOD.replace("torch.randn(6, 4)", "2 * (torch.randn(6, 4),)"), "D010", "(4,) float32 and (4,) float32"),
    (GOOD.replace("torch.randn(6, 4)", "torch.randn(6, 4).double()"), "D010", "(4,) float64; the model takes (4,) f"),
    (GOOD.replace("torch.randn(6, 4)", "{'x': torch.randn(6, 4)}")
         .replace("torch.randn(3, 4)", "{'x': torch.randn(3, 4)}"), "D010", "has no inputs by name"),
    (targets("torch.full((6,), 7)", TARGETS[1]), "D007", "`data['train']` has the label 7; the model's output has 3"),
    (targets(TARGETS[0], "torch.full((3,), 7)"), "D007", "`data['test']` has the label 7"),
    (targets(TARGETS[0], "torch.full((3,), -100)"), "D007", "no label from 0 on"),
    (targets("torch.zeros(6)", "torch.zeros(3)"), "D014", "target (2,) float32 of the train part"),
    (targets("torch.zeros(6, 2)", "torch.zeros(3, 2)") + "loss_fn = F.mse_loss\n", "D014", "Using a target size"),
    (GOOD + "loss_fn = 3\n", "D014", "net.py:8: `loss_fn` is a int"),
    (GOOD + "loss_fn = nn.MSELoss\n", "D014", "`loss_fn` is the class MSELoss"),
    (GOOD + "def loss_fn(a, y):\n    raise RuntimeError('no')\n", "D014", "net.py:9: the loss fails"),
    (GOOD + "def loss_fn(a, y):\n    return a.mean(0)\n", "D014", "is of shape (3,), not a scalar"),
    ("def data():\n    raise RuntimeError('no file')\n", "M003", "no file"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, text: str, code: str, words: str) -> None:
    report = failing(tmp_path, text)
    assert f"error[{code}]" in report and words in report
    assert report.count("error[") == 1


def test_a_model_that_fails_on_its_data_is_refused(tmp_path: Path) -> None:
    text = TWO + "example_inputs = {'codes': codes, 'numbers': numbers}\n"
    text += "part = {'codes': codes + (torch.arange(12) == 9), 'numbers': numbers}, y\ndata = part, part\n"
    file = tmp_path / "net.py"  # the tenth code is one too large for the table
    file.write_text(text)
    result = invoke(file)
    assert result.exit_code == 2 and "error[M010]" in result.stderr and "its data" in result.stderr


def test_validation_samples_come_from_the_end(tmp_path: Path) -> None:
    report = train(tmp_path, MODEL + GOOD, "--validation", "2")
    assert report["data"] == "own" and report["results"][0]["history"][0][0]["valid_error"] is not None
    assert "D011" in failing(tmp_path, GOOD, "--validation", "6")
    assert "D011" in failing(tmp_path, GOOD + "data['valid'] = data['test']\n", "--validation", "1")


def test_a_part_may_be_for_validation(tmp_path: Path) -> None:
    report = train(tmp_path, MODEL + GOOD + "data['valid'] = data['test']\n")
    epoch = report["results"][0]["history"][0][0]
    assert epoch["valid_error"] == epoch["test_error"]


def test_a_data_set_can_be_named_where_the_file_brings_its_own(tmp_path: Path) -> None:
    text = MODEL.replace("4, 3", "64, 10").replace("2, 4", "2, 64") + GOOD
    assert train(tmp_path, text, "--data", "digits")["data"] == "digits"


def test_the_files_loss_holds_for_data_sets_too(tmp_path: Path) -> None:
    text = MODEL.replace("4, 3", "64, 10").replace("2, 4", "2, 64")
    plain, smooth = (
        train(tmp_path, text + more)["results"][0]["history"][0][0]["loss"]
        for more in ("", "loss_fn = nn.CrossEntropyLoss(label_smoothing=0.9)\n")
    )
    assert plain != smooth
    (tmp_path / "net.py").write_text(text + "loss_fn = F.mse_loss\n")
    assert "error[D014]" in invoke(tmp_path / "net.py").stderr


def test_a_module_called_data_is_not_data(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("")
    text = MODEL.replace("4, 3", "64, 10").replace("2, 4", "2, 64") + "import data\n"
    assert train(tmp_path, text)["data"] == "digits"


@pytest.mark.parametrize(("target", "loss", "measure"), [
    ("torch.zeros({n}).long()", "", "error"),
    ("torch.zeros({n}).int()", "def loss_fn(a, y):\n    return F.cross_entropy(a, y.long())\n", "error"),
    ("torch.full(({n}, 3), 1 / 3)", "", "loss"),
    ("torch.zeros({n}, 3)", "loss_fn = nn.MSELoss()\n", "loss"),
    ("torch.zeros({n}, 3).long()", "loss_fn = nn.MSELoss()\n", "loss"),
    ("torch.ones({n}, 3)", "loss_fn = nn.MSELoss(reduction='sum')\n", "loss"),
])  # fmt: skip
def test_the_error_is_measured_where_targets_are_classes(tmp_path: Path, target: str, loss: str, measure: str) -> None:
    text = MODEL + targets(target.format(n=6), target.format(n=3)) + loss
    assert train(tmp_path, text)["measure"] == measure
    shown = invoke(tmp_path / "net.py").stdout
    assert f"backprop: test {measure} " in shown
    assert ("%" in shown) == (measure == "error")


def test_resumed_runs_have_the_same_data(tmp_path: Path) -> None:
    file, runs = tmp_path / "net.py", str(tmp_path / "runs")
    train(tmp_path, MODEL + GOOD, "--schedule", "constant", "--run-dir", runs)
    again = ("--schedule", "constant", "--run-dir", runs, "--resume", "--epochs", "2")
    assert len(train(tmp_path, MODEL + GOOD, *again)["results"][0]["history"][0]) == 2
    file.write_text(MODEL + GOOD.replace("seed(0)", "seed(1)"))
    changed = invoke(file, *again)
    assert changed.exit_code == 2 and "error[T021]" in changed.stderr and "the data's checksum" in changed.stderr


@pytest.mark.parametrize("given", [
    # both ways give each argument its own tensor, whatever the order of the dicts
    "example_inputs = {'numbers': numbers, 'codes': codes}\npart = {'numbers': numbers, 'codes': codes}, y\n",
    "example_inputs = {'codes': codes, 'numbers': numbers}\npart = {'numbers': numbers, 'codes': codes}, y\n",
    "example_inputs = {'numbers': numbers, 'codes': codes}\npart = (codes, numbers), y\n",
])
def test_inputs_by_name(tmp_path: Path, given: str) -> None:
    report = train(tmp_path, TWO + given + "data = part, part\n", "--epochs", "150", "--lr", "0.05")
    assert report["results"][0]["test_error"]["mean"] < 10


def test_other_names_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    text = "example_inputs = {'codes': codes, 'numbers': numbers}\npart = {'code': codes, 'numbers': numbers}, y\n"
    file.write_text(TWO + text + "data = part, part\n")
    report = invoke(file).stderr
    assert "error[D010]" in report and "`data` has the inputs code, numbers" in report


def test_classes_are_found_on_either_axis() -> None:
    logits, y = torch.zeros(2, 5, 5), torch.zeros(2, 5, dtype=torch.long)
    assert classes_axis(logits, y, F.cross_entropy) == 1
    assert classes_axis(logits, y, lambda a, b: F.cross_entropy(a.flatten(0, 1), b.flatten())) == -1
    assert classes_axis(torch.zeros(2, 7, 5), y, F.cross_entropy) == 1
    assert classes_axis(torch.zeros(2, 5, 7), y, F.cross_entropy) == -1
    assert classes_axis(torch.zeros(2, 5, 1), y, F.cross_entropy) is None, "one value is no choice between classes"
    assert classes_axis(logits, y.float(), F.cross_entropy) is None


def test_padding_does_not_count() -> None:
    model = nn.Identity()
    logits = F.one_hot(torch.tensor([[0, 1, 2], [0, 0, 0]]), 4).float()
    y = torch.tensor([[0, 1, 1], [0, -100, -100]])
    assert error_percent(model, lambda x: model(x[0]), ((logits,), y), F.mse_loss) == 25


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_per_sample_however_it_is_reduced(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reclra_compile.train.measure.BATCH", 4)
    model, x, y = nn.Identity(), torch.arange(10.0)[:, None], torch.zeros(10, 1)
    loss = mean_loss(model, lambda inputs: model(inputs[0]), ((x,), y), nn.MSELoss(reduction=reduction))
    assert loss == pytest.approx(float(x.square().mean()))


def test_parameters_that_nothing_teaches_are_refused_unless_told(tmp_path: Path) -> None:
    extra = "model.spare = nn.Parameter(torch.zeros(3))\n"
    assert "error[T025]" in failing(tmp_path, extra + GOOD)
    train(tmp_path, MODEL + extra + GOOD, "--unreached", "freeze")
