"""Saves that are killed before any of their calls: the newest checkpoint is whole, and the next save tidies up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reclra_compile as rc
from reclra_compile.ir import Training
from reclra_compile.train import checkpoint
from reclra_compile.train.checkpoint import checkpoint_of
from reclra_compile.train.loop import Run
from reclra_compile.train.named import weights

TESTS = Path(__file__).parent
PATIENCE = 120  #: seconds for what takes a few
CALLS = {"write", "fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "chmod", "open", "fdopen"}


class One:
    """A rank that is alone, which keeps shards as others do."""

    rank = stage = replica = 0
    count = stages = replicas = 1

    def total(self, values: Any) -> list[float]:
        return list(values)

    def gather(self, text: str) -> list[str]:
        return [text]

    def barrier(self) -> None:
        """Nobody to wait for."""


def small_run(form: str) -> Run:
    """A run of one layer that has taken its first step."""
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    run = Run(rc.compile(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), x, "depth1"), (x, y),
              Training(epochs=1, batch_size=4))  # fmt: skip
    if form == "shards":
        run.program.peers = One()
    advance(run)
    return run


def advance(run: Run) -> None:
    """One more step."""
    inputs, y = run.train
    run._step((inputs[0][:4],), y[:4], run.done)  # type: ignore[index]
    run.done += 1


def killed_before(call: int, save: Callable[[], None]) -> bool:
    """Whether a copy of this process was killed before its `call`-th call that changes files while it saves."""
    child = os.fork()
    if child == 0:
        seen = 0

        def profile(frame: Any, event: str, function: Any) -> None:
            nonlocal seen
            if event == "c_call" and getattr(function, "__name__", "") in CALLS:
                seen += 1
                if seen == call:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(profile)
        save()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def kill_everywhere(root: str, form: str) -> int:
    """Kill a save before each of its calls; how many there were."""
    first, folder = Path(root) / "first", Path(root) / "run"
    run = small_run(form)
    first.mkdir()
    checkpoint.keep(first, run, [], {})
    states = [{name: x.clone() for name, x in weights(run)}]
    advance(run)
    states.append({name: x.clone() for name, x in weights(run)})
    found: list[int] = []
    again = small_run(form)
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(first, folder)
        killed = killed_before(len(found) + 1, lambda: checkpoint.keep(folder, run, [], {}))
        checkpoint.resume(checkpoint_of(folder), again, {})
        now = dict(weights(again))
        assert again.done in (1, 2)
        assert all(torch.equal(x, now[name]) for name, x in states[again.done - 1].items())
        checkpoint.keep(folder, again, [], {})  # and whatever was left lying about is removed
        files = sorted(p.relative_to(folder).parts[0] for p in folder.rglob("*"))
        assert set(files) == {"checkpoint" if form == "shards" else "checkpoint.pt"}, files
        assert len(list(folder.rglob("*"))) == (5 if form == "shards" else 1)
        if not killed:
            assert again.done == 2
            assert 1 in found  # before a manifest, or the file itself, is there
            assert form == "file" or 2 in found  # while what it replaces is removed
            return len(found)
        found.append(again.done)


@pytest.mark.parametrize("form", ["file", "shards"])
def test_a_save_may_be_killed_anywhere(tmp_path: Path, form: str) -> None:
    code = f"import test_torn; print(test_torn.kill_everywhere({str(tmp_path)!r}, {form!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=TESTS, capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= (5 if form == "file" else 15)
