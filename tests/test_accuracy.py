"""MNIST, 5×256, 10 epochs, 3 seeds, with the settings the wirings ship: run by `make check-all`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from conftest import ROOT

from reclra_compile.cli.main import main

#: wiring, activation, largest mean test error in percent
GOALS = [
    ("lra_e", "relu", 1.9),
    ("depth2", "relu", 1.85),
    ("depth2", "tanh", 2.0),
    ("depth2_gap2", "elu", 2.0),
    ("depth1", "relu", 2.1),
    ("depth1", "tanh", 2.2),
    ("lra_e", "sign", 3.1),
    ("depth1_literal", "sign", 4.5),
]


@pytest.mark.slow
@pytest.mark.parametrize(("wiring", "phi", "goal"), GOALS)
def test_mnist(wiring: str, phi: str, goal: float, data_dir) -> None:
    model = f"{ROOT / 'examples' / 'mlp_mnist.py'}:{phi}"
    arguments = ["train", model, "--wiring", wiring, "--data", "mnist", "--data-dir", str(data_dir), "--seeds", "3"]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["results"]
    assert row["test_error"]["mean"] <= goal
    assert max(row["test_error"]["each"]) <= 1.5 * goal, "a run collapsed"
