"""Wirings that the compiler chooses, trained: the options of compile hold for train, and the file's for diagnose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT

from reclra_compile.cli.main import main
from reclra_compile.ir import Plan

FILE = str(ROOT / "examples" / "mlp_digits.py")


def run(*words: str) -> Result:
    return CliRunner().invoke(main, [*words], catch_exceptions=False)


def test_runs_of_a_chosen_wiring_are_found_again(tmp_path: Path) -> None:
    """Training with --groups keeps what --runs reads; the groups' row has their error, and backprop's its own."""
    result = run("train", FILE, "--groups", "2", "--compare", "backprop", "--epochs", "1", "--batch-size", "256",
                 "--run-dir", str(tmp_path), "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    plan = Plan.parse((tmp_path / "auto" / "seed0" / "plan.txt").read_text(encoding="utf-8"))
    assert [r.name for r in plan.regions] == ["group1", "group2"]
    errors = {}
    for name in ("auto", "backprop"):
        lines = (tmp_path / name / "seed0" / "log.jsonl").read_text(encoding="utf-8").splitlines()
        errors[name] = json.loads(lines[-1])["test_error"]
    report = json.loads(run(FILE, "--groups", "2", "--devices", "2", "--runs", str(tmp_path), "--json").stdout)
    rows = {a["label"]: a["error"] for a in report["auto"]["alternatives"]}
    assert rows["groups 2"] == pytest.approx(errors["auto"]) and rows["depth 1"] is None
    assert rows["backprop"] == pytest.approx(errors["backprop"])


def test_options_replace_what_the_file_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("version: 1\nname: mine\nauto: {depth: 1}\n", encoding="utf-8")
    words = ("train", FILE, "-w", str(file), "--bottlenecks", "fc3", "--depth", "2", "--epochs", "1")
    result = run(*words, "--batch-size", "256", "--run-dir", str(tmp_path / "runs"))
    assert result.exit_code == 0, result.output
    (written,) = (tmp_path / "runs").rglob("plan.txt")
    waves = Plan.parse(written.read_text(encoding="utf-8")).waves
    assert len(waves) == 3 and "fc3" in waves[1] and set(waves[2]) == {"fc1", "fc2"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--auto", "-w", "depth1"), "leave one of the two out"),
        (("--depth", "1", "--bottlenecks", "2"), "error[W046]"),
        (("--groups", "2", "--plan", "x.plan"), "error[P012]"),
        (("--bottlenecks", "fc33"), "did you mean 'fc3'"),
    ],
)
def test_what_cannot_be_asked_for_ends_with_status_2(words: tuple[str, ...], said: str) -> None:
    result = run("train", FILE, *words)
    assert result.exit_code == 2 and said in result.output, result.output
