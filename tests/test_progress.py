"""What the progress display of training says: what is left, and what has room."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from reclra_compile.cli.main import main
from reclra_compile.cli.training_progress import Pace, RunProgress, clock_text, status_line


def test_pace_knows_what_is_left() -> None:
    at = [100.0]
    pace = Pace(10, 40, 5, lambda: at[0])
    assert pace.left is None and pace.epoch_left(5) is None and pace.per_step is None
    at[0], _ = 110.0, pace.step(10)  # five steps in ten seconds
    assert pace.epoch_left(7) == pytest.approx(6.0) and pace.left == pytest.approx(60.0)
    assert pace.whole == pytest.approx(80.0)
    at[0] = 115.0  # evaluated in five
    pace.epoch()
    assert pace.per_step is None and pace.left == pytest.approx(90.0)
    at[0], _ = 117.0, pace.step(12)
    assert pace.per_step == pytest.approx(1.0) and pace.epoch_left(2) == pytest.approx(8.0)


@pytest.mark.parametrize(("seconds", "text"), [(None, "–:––"), (4.2, "0:04"), (754, "12:34"), (3723, "1:02:03")])
def test_times_in_words(seconds: float | None, text: str) -> None:
    assert clock_text(seconds) == text


def test_what_has_no_room_is_left_out() -> None:
    parts = [("epoch 1/2", 0), ("loss 0.5", 1), ("D(Θ) 1e-3", 3), ("valid 2 %", 2)]
    assert status_line(parts, 80) == "epoch 1/2  loss 0.5  D(Θ) 1e-3  valid 2 %"
    assert status_line(parts, 35) == "epoch 1/2  loss 0.5  valid 2 %"
    assert status_line(parts, 3) == "epoch 1/2"


CONVOLUTIONS = """
import torch
from torch import nn

model = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
example_inputs = torch.zeros(4, 64)
"""


def test_what_plans_warn_of_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(CONVOLUTIONS)
    words = ["train", "net.py", "-w", "feedback_alignment", "-c", "backprop", "--epochs", "1", "--batch-size", "800"]
    done = CliRunner().invoke(main, [*words, "--threads", "1", "--seeds", "2"], catch_exceptions=False)
    assert done.exit_code == 0 and done.stderr.count("warning[W111]: feedback_alignment: ") == 1, done.output
    assert "W111" not in done.stdout and "1 epoch of batch 800" in done.stdout
    done = CliRunner().invoke(main, [*words, "--threads", "1", "--json"], catch_exceptions=False)
    ours, theirs = json.loads(done.stdout)["results"]
    assert ours["warning_codes"] == ["W111"] and "hardly train" in ours["warnings"][0]
    assert theirs["warnings"] == [] and "W111" not in done.stderr


def test_the_display_of_a_run() -> None:
    out = Console(width=72, force_terminal=True, color_system=None, record=True)
    progress = RunProgress(out, disable=True)
    progress.begin("depth2, seed 0", 40, 0)
    progress.show(10, "0:30 left", [("epoch 1/4, 0:02 left", 0), ("loss 0.5000", 1)])
    out.print(*progress.get_renderables())
    bar, status = (line.rstrip() for line in out.export_text().splitlines()[:2])
    assert bar.startswith("depth2, seed 0 ━") and bar.endswith("10/40 steps 0:30 left") and len(bar) <= 72
    assert status.strip() == "epoch 1/4, 0:02 left  loss 0.5000"
