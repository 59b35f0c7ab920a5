"""`reclra-compile report` where runs are damaged, unfinished, or not alike."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reclra_compile.cli.main import main
from reclra_compile.report.page import to_html
from reclra_compile.report.runs import read_runs
from reclra_compile.report.summary import summary

SMALL = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10))
example_inputs = torch.zeros(4, 64)
"""


def invoke(*arguments: str) -> Result:
    """The command's result; an exception other than an exit is a failure."""
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of two wirings and two seeds; nobody changes it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.py").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = invoke("train", "small.py", "--compare", "backprop", "--seeds", "2", "--run-dir", "runs",
                      "--epochs", "2", "--batch-size", "500", "--threads", "1")  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def runs(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs, with the working folder where they were made."""
    monkeypatch.chdir(made)
    return made / "runs"


@pytest.mark.parametrize(
    "about",
    [{"seed": "abc"}, {"options": {"compare": 5}}, {"resumed": 5}, {"resumed": [5]}, {"settings": []}, {"data": 3},
     {"data": {"train": "x"}}, {"wiring": 1}, {"command": "x"}, {"environment": "x"}, {"options": 5}],
)  # fmt: skip
def test_wrong_kinds_in_run_json(runs: Path, tmp_path: Path, about: dict[str, object]) -> None:
    copy = Path(shutil.copytree(runs / "depth2", tmp_path / "v2"))
    (copy / "seed0/run.json").write_text(json.dumps({"format": 1, **about}))
    done = invoke("report", str(copy), "--no-align")
    assert (done.exit_code, "error[Y004]" in done.stderr) == (2, True), done.output


def test_runs_without_a_checkpoint_have_no_angles(runs: Path, tmp_path: Path) -> None:
    """One is missing, as of a run in its first epoch, one is damaged; the others are measured."""
    copy = Path(shutil.copytree(runs, tmp_path / "v2"))
    (copy / "backprop/seed0/checkpoint.pt").unlink()
    (copy / "depth2/seed1/checkpoint.pt").write_bytes(b"junk")
    about = json.loads((copy / "backprop/seed1/run.json").read_text())
    (copy / "backprop/seed1/run.json").write_text(json.dumps({**about, "options": {**about["options"], "lr": "x"}}))
    done = invoke("report", str(copy), "--json", "--threads", "1", "--batches", "1")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    ours, theirs = found["wirings"]
    assert [len(a["end"]) for a in ours["alignment"]] == [1, 1, 1] and theirs["alignment"] is None
    missing, damaged, wrong = sorted(n for n in found["notes"] if n.startswith("Angles"))[:3]
    assert "backprop, seed 0 are left out" in missing and "there is no checkpoint (T020)" in missing
    assert "backprop, seed 1 are left out" in damaged and "(Y004)" in damaged
    assert "depth2, seed 1 are left out" in wrong and "it is not whole, or no checkpoint (T020)" in wrong
    assert str(tmp_path) not in done.stdout  # a page names no folders


def test_runs_that_differ_in_more_than_seeds_are_not_averaged(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "v2"))
    file = copy / "depth2/seed1/run.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "settings": {**about["settings"], "lr": 0.5}}))
    found = json.loads(invoke("report", str(copy), "--json", "--no-align").stdout)
    lr = f"{about['settings']['lr']:g}"
    assert [w["label"] for w in found["wirings"]] == [f"depth2 (lr {lr})", "depth2 (lr 0.5)", "backprop"]
    assert [w["seeds"] for w in found["wirings"]] == [[0], [1], [0, 1]] and found["wirings"][1]["wiring"] == "depth2"
    assert any("shown apart: depth2 (lr" in note for note in found["notes"])
    text = to_html(summary(read_runs(copy)))
    assert "<td>0.5</td>" in text and "depth2 (lr 0.5)" in text
    plan = copy / "depth2/seed1/plan.txt"
    fingerprint = about["fingerprint"]
    plan.write_text(plan.read_text().replace(fingerprint, "m" + "0" * (len(fingerprint) - 1)))
    file.write_text(json.dumps(about))
    labels = [g.label for g in summary(read_runs(copy)).groups]
    assert labels == [f"depth2 (model {fingerprint[:8]})", "depth2 (model m0000000)", "backprop"]
    file.unlink()
    assert "depth2 (settings unknown)" in [g.label for g in summary(read_runs(copy)).groups]


def test_a_seed_that_is_not_finished(runs: Path, tmp_path: Path) -> None:
    """Final numbers are of the seeds that have them, say so, and are not the best."""
    copy = Path(shutil.copytree(runs, tmp_path / "v2"))
    log = copy / "depth2/seed1/log.jsonl"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    other = copy / "depth2/seed0/log.jsonl"
    lines = [{**json.loads(line), "test_error": 0.25} for line in other.read_text().splitlines()]
    other.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = summary(read_runs(copy))
    text = to_html(report)
    row = re.search(r"<tr[^>]*><th[^>]*><i></i>depth2</th>.*?</tr>", text)
    assert row is not None and "<td>0.25 %</td>" in row[0] and "<td>1 of 2 seeds</td>" in row[0]
    assert 'class="best"' not in text and "best" not in row[0] and report.groups[0].series["loss"].count == (2, 1)
    found = json.loads(invoke("report", str(copy), "--json", "--no-align").stdout)
    assert [w["curves"]["test_error"]["count"] for w in found["wirings"]] == [[2, 1], [2, 2]]
