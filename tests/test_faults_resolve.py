"""Every wiring under faults/resolve is valid but does not fit its model, and gives exactly the report beside it.

The model is the MLP fc1 … fc5, out of tests/models.py, or the one that a first line `# model: NAME` names.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from models import MLP, build
from torch import Tensor, nn

from reclra_compile.compiler import plan_for
from reclra_compile.errors import WiringError
from reclra_compile.spec import divide, nest, resolve
from reclra_compile.spec.load import load_wiring

CODES = {**resolve.CODES, **divide.CODES, **nest.CODES}
del CODES["W040"]  # of the command line and of compile(granularity=…), not of a file: tests/test_regions.py
FOLDER = Path(__file__).parent / "faults" / "resolve"
FILES = sorted(FOLDER.glob("*.yaml"))


class Glue(nn.Module):
    """fc1 and fc2 are multiplied: a region `mul` without parameters, read by fc3 and fc4."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.fc4, self.out = (nn.Linear(6, 6) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        product = torch.tanh(self.fc1(x)) * torch.tanh(self.fc2(x))
        result: Tensor = self.out(torch.relu(self.fc3(product)) + torch.relu(self.fc4(product)))
        return result


def _conv() -> nn.Module:
    parts = {"c1": nn.Conv2d(1, 2, 3), "phi1": nn.ReLU(), "c2": nn.Conv2d(2, 2, 3), "phi2": nn.ReLU()}
    return nn.Sequential(OrderedDict([*parts.items(), ("flat", nn.Flatten()), ("out", nn.Linear(8, 3))]))


def _blocks() -> nn.Module:
    body = nn.Sequential(OrderedDict([("fc1", nn.Linear(6, 6)), ("phi", nn.ReLU()), ("fc2", nn.Linear(6, 6))]))
    return nn.Sequential(OrderedDict([("body", body), ("phi", nn.ReLU()), ("out", nn.Linear(6, 3))]))


OWN = {
    "glue": lambda: (Glue(), torch.zeros(4, 6)),
    "conv": lambda: (_conv(), torch.zeros(4, 1, 6, 6)),
    "blocks": lambda: (_blocks(), torch.zeros(4, 6)),
    "deep": lambda: (MLP(hidden=30), torch.zeros(4, 6)),
}


def example(path: Path) -> tuple[nn.Module, Tensor]:
    """The model a wiring is meant for, and an input for it."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    name = first.removeprefix("# model:").strip() if first.startswith("# model:") else "mlp"
    return OWN[name]() if name in OWN else build(name)


@functools.cache
def error_of(path: Path) -> WiringError:
    """What resolving the wiring raises."""
    with pytest.raises(WiringError) as caught:
        plan_for(*example(path), path)
    return caught.value


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_report(path: Path, request: pytest.FixtureRequest) -> None:
    expected = path.with_suffix(".expected")
    load_wiring(path)  # valid in itself
    text = str(error_of(path)).replace(f"{path.parent}/", "") + "\n"
    if request.config.getoption("--update-golden", default=False):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_each_fault_has_a_place_and_a_fix(path: Path) -> None:
    faults = error_of(path).faults
    for fault in faults:
        assert fault.where is not None
        assert fault.where.file == str(path)
        assert fault.where.line
        assert fault.where.column
        assert fault.fix
    places = [(f.where.line, f.where.column) for f in faults if f.where]
    assert places == sorted(places)


def test_every_code_has_a_report() -> None:
    text = "".join(path.with_suffix(".expected").read_text(encoding="utf-8") for path in FILES)
    assert [code for code in CODES if f"error[{code}]" not in text] == []


def test_no_report_is_left_over() -> None:
    assert {p.stem for p in FOLDER.glob("*.expected")} == {p.stem for p in FILES}


def test_a_dict_has_a_path_in_place_of_a_line() -> None:
    wiring = {"version": 1, "pathways": [{"from": "output", "to": ["fc1", "fc9"]}, {"from": "nxt", "to": "rest"}]}
    with pytest.raises(WiringError) as caught:
        plan_for(*build("mlp"), wiring)
    assert [str(f.where) for f in caught.value.faults] == ["<dict>: pathways[0].to[1]", "<dict>: pathways[1].from"]
