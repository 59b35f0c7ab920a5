"""The benchmark of pipelines runs; each contender gives the gradients of autograd, or of its plan in one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIPELINES = {"1F1B", "GPipe", "interleaved 1F1B", "interleaved zero bubble", "ZBV zero bubble"}
OTHERS = {"rec-LRA depth1", "rec-LRA blocks", "backprop (this engine)", "rec-LRA depth1 (one process)", "DDP",
          "backprop (one process)"}  # fmt: skip
TIMEOUT_S = 120


@pytest.mark.slow
def test_every_contender_runs_and_pipelines_give_the_gradients_of_autograd() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "pipeline.py"), "--only", "tiny", "--microbatches", "4",
               "--rounds", "1", "--profile-rounds", "1", "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {r["contender"]: r for r in json.loads(done.stdout)["rows"]}
    assert rows.keys() >= PIPELINES | OTHERS
    assert {name: r["gradient_error"] for name, r in rows.items() if not r["gradient_error"] < 1e-5} == {}
    for name in ("1F1B", "GPipe", "interleaved 1F1B", "DDP", "rec-LRA depth1", "rec-LRA depth1 (one process)"):
        assert rows[name]["predicted_ms"] > 0 and rows[name]["bound"] > 0
