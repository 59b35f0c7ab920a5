"""Whole plans as text, compared with the files under golden/: any change of a plan shows up as a diff.

Where a change is meant, rewrite them with `pytest tests/test_golden_plans.py --update-golden` and read the diff.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from architectures import ARCHITECTURES
from models import MODELS
from models import build as build_small
from torch import Tensor, nn

from reclra_compile.compiler import plan_for
from reclra_compile.ir import Plan
from reclra_compile.spec.load import shipped
from reclra_compile.verify import verify

FOLDER = Path(__file__).parent / "golden"
PAIRS = [
    ("mlp", "depth1"),
    ("mlp", "depth1_literal"),
    ("mlp", "depth1_paper"),
    ("mlp", "depth2"),
    ("mlp", "depth2_paper"),
    ("mlp", "direct_feedback_alignment"),
    ("residual", "depth2_gap2"),
    ("residual", "backprop"),
    ("residual", "kolen_pollack"),
    ("branching", "depth2"),
    ("branching", "feedback_alignment"),
    ("batchnorm", "lra_e"),
    ("batchnorm", "sign_symmetry"),
    ("batchnorm", "depth1_local"),
    ("resnet", "blocks"),
    ("resnet", "blocks_nested"),
    ("resnet", "groups"),
    ("dropout", "depth2"),
    ("dropout", "backprop"),
    ("shared", "depth1"),
    ("shared", "kolen_pollack"),
    ("mlp", "target_propagation"),
    ("mlp", "equilibrium_propagation"),
    ("mlp", "feedback_alignment_bp"),
    ("batchnorm", "weight_mirror"),
    ("batchnorm", "sign_symmetry_bp"),
    ("resnet", "feedback_alignment_wm"),
]


def golden(model: str, wiring: str) -> Path:
    return FOLDER / f"{model}-{wiring}.plan"


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A model of either collection with inputs."""
    if name in MODELS:
        return build_small(name)
    model, (x,) = ARCHITECTURES[name]()
    return model, x


def placeless(plan: Plan) -> Plan:
    """The plan without the lines of code its regions come from, which move with every edit of the tests."""
    return replace(plan, regions=tuple(replace(r, source="") for r in plan.regions))


@pytest.mark.parametrize(("model", "wiring"), PAIRS)
def test_plan(model: str, wiring: str, request: pytest.FixtureRequest) -> None:
    made = placeless(plan_for(*build(model), wiring))
    if request.config.getoption("--update-golden", default=False):
        golden(model, wiring).write_text(str(made), encoding="utf-8")
    text = golden(model, wiring).read_text(encoding="utf-8")
    assert str(made) == text
    assert Plan.parse(text) == made


@pytest.mark.parametrize(("model", "wiring"), PAIRS)
def test_golden_plan_is_sound(model: str, wiring: str) -> None:
    file = golden(model, wiring)
    verify(Plan.parse(file.read_text(encoding="utf-8"), file.name))


def test_every_shipped_wiring_has_a_golden_plan() -> None:
    assert {wiring for _, wiring in PAIRS} == set(shipped())


def test_no_golden_plan_is_left_over() -> None:
    assert set(FOLDER.glob("*.plan")) == {golden(*pair) for pair in PAIRS}
