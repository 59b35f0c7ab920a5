"""Rules of one's own: registered in Python, by a model's file, and by the entry points of an installed package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT
from test_equations import make, synapses_of

import reclra_compile as rc
from reclra_compile.cli.main import main
from reclra_compile.errors import UserError, WiringError
from reclra_compile.ir import Plan
from reclra_compile.rules.registry import TARGETS, UPDATES
from reclra_compile.verify import verify

MODULE = '''
from reclra_compile import register_target, register_update

@register_target("plugged_target")
def plugged_target(z, d, beta):
    """y = z − 2 β d."""
    return z - 2 * beta * d

@register_update("plugged_update")
def plugged_update(h, e):
    """ΔE = h eᵀ."""
    return h, e
'''


def wiring(rule: str, update: str, source: str = "next") -> dict:
    return {
        "version": 1,
        "target": {"rule": rule, "beta": 0.5, "normalize": False},
        "pathways": [{"from": source, "to": "all", "kernel": "dense", "update": update, "init": {"normal": 0.3}}],
    }


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package `plugged` that offers a target rule and an update, as pip would install it."""
    (tmp_path / "plugged.py").write_text(MODULE, encoding="utf-8")
    info = tmp_path / "plugged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[reclra_compile.targets]\nplugged_target = plugged\nbroken_target = plugged_nowhere\nempty_target = plugged\n"
        "[reclra_compile.updates]\nplugged_update = plugged\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("plugged", None)


def test_a_rule_of_an_installed_package_is_used_by_its_name(installed: Path) -> None:
    assert "plugged" not in sys.modules
    _, program, net, x, y = make(4, "tanh", wiring("plugged_target", "plugged_update"))
    program.step(x, y)
    h, z = net.forward(x)
    e = torch.softmax(z[4], 1) - torch.nn.functional.one_hot(y, 4)
    for i in (3, 2, 1):
        E = synapses_of(program, i + 1, i)
        torch.testing.assert_close(E.E_T.grad.T, h[i].T @ e / len(x), rtol=1e-12, atol=1e-12)
        e = e @ E.E.detach().T  # z − y = 2 β d with β = ½
        dW = e.T @ z[i - 1] / len(x)
        torch.testing.assert_close(getattr(program.model, f"l{i}").weight.grad, dW, rtol=1e-12, atol=1e-12)


def test_a_plan_with_a_rule_of_a_package_is_read_and_verified(installed: Path) -> None:
    _, program, *_ = make(3, "tanh", wiring("plugged_target", "plugged_update"))
    assert verify(Plan.parse(str(program.plan))) == program.plan


@pytest.mark.parametrize(("name", "code", "words"), [
    ("broken_target", "L003", "plugged_nowhere"), ("empty_target", "L003", "registers no such name"),
    ("absent_target", "W004", "unknown target rule"),
])  # fmt: skip
def test_a_rule_that_is_not_there_is_an_error(installed: Path, name: str, code: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        make(3, "tanh", wiring(name, "kolen_pollack"))
    assert caught.value.faults[0].code == code and words in caught.value.faults[0].message


def test_names_cannot_be_taken_twice() -> None:
    for name in ("lra", "auto"):
        with pytest.raises(UserError, match="L001"):

            @rc.register_update(name)
            def other(z, e):
                return z, e

    with pytest.raises(UserError, match="L001"):

        @rc.register_target("gradient")
        def another(z, d):
            return z - d


def test_a_rule_that_reads_what_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="'weather'"):

        @rc.register_target("cloudy")
        def cloudy(z, weather):
            return z

    with pytest.raises(UserError, match="'r'"):  # r is for read-outs

        @rc.register_update("reader")
        def reader(z, r):
            return z, r

    assert "cloudy" not in TARGETS and "reader" not in UPDATES


def test_an_update_has_the_kernels_it_says() -> None:

    @rc.register_update("dense_only", kernels=("dense",))
    def dense_only(z, e):
        """ΔE = z eᵀ, for one kernel."""
        return z, e

    make(3, "tanh", wiring("lra", "dense_only"))
    spec = wiring("lra", "dense_only")
    spec["pathways"][0]["kernel"] = {"low_rank": 2}
    with pytest.raises(WiringError, match="W028"):
        make(3, "tanh", spec)


@pytest.mark.parametrize("command", ["check", "train", "compile"])
def test_a_models_file_registers_rules_that_a_wiring_names(command: str) -> None:
    example = ROOT / "examples" / "own_rule.py"
    wiring = str(example.with_suffix(".yaml"))
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 30
    arguments = {"check": [wiring, str(example)], "train": [str(example), "-w", wiring, "--epochs", "1"],
                 "compile": [str(example), "-w", wiring]}  # fmt: skip
    result = CliRunner().invoke(main, [command, *arguments[command]])
    assert result.exit_code == 0, result.output
