"""Ranks that fail: one clear message, status 2, nobody left behind, and nothing lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from faulty_ranks import MODEL

from reclra_compile.cli.main import main
from reclra_compile.distributed import launch

TIMEOUT = 120


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "GRACE", 1)
    Path("model.py").write_text(MODEL)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Train on two ranks, one of which has a fault."""

    def run(fault: str, *flags: str) -> Result:
        monkeypatch.setenv("FAULT", fault)
        flags = ("--epochs", "3", "--batch-size", "16", "--run-dir", "runs", "--rank-timeout", "5", *flags)
        pins = [word for pin in ("0=0", "2=0", "4=1", "6=1") for word in ("--pin", pin)]  # rank 1 has the loss
        words = ["train", "model.py", "-w", "depth1", "--devices", "2", *pins, "--microbatches", "2", *flags]
        result = CliRunner().invoke(main, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def message(done: Result) -> str:
    """The one fault that is printed."""
    assert done.exit_code == 2, done.output
    assert done.stderr.count("error[") == 1, done.stderr
    return done.stderr


RANK = "rank 1 (stage 1, device 'cpu:1')"


@pytest.mark.slow
def test_a_killed_rank_is_started_again_and_ends_the_same(train: Callable[..., Result]) -> None:
    """Without restarts it is said, with all that is kept; the run then goes on to the same end."""
    said = message(train("KILL:21", "--checkpoint-every", "1"))
    assert f"error[R110]: {RANK} was ended by SIGKILL, last heard " in said
    assert "; the last checkpoint, after " in said and said.count("go on with --resume") == 1
    done = train("", "--resume", "--one-process", "--json")
    again = train("KILL:21", "--max-restarts", "1", "--run-dir", "again", "--json")
    whole = train("", "--run-dir", "whole", "--one-process", "--json")
    for other in (done, again):
        for x, y in zip(histories(other), histories(whole), strict=True):
            assert x == pytest.approx(y, rel=1e-9)
    assert "started again (1 of 1)" in again.stderr


def histories(done: Result) -> list[dict[str, Any]]:
    """The epochs of a run, without their times."""
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    flat = [{**e, **{f"D of {name}": d for name, d in e["regions"].items()}} for e in result["history"][0]]
    return [{k: v for k, v in e.items() if v is not None and k not in ("seconds", "regions")} for e in flat]


@pytest.mark.parametrize("what", ["STOP", pytest.param("loop", marks=pytest.mark.slow)])
def test_a_rank_that_hangs_is_named_by_the_others(train: Callable[..., Result], what: str) -> None:
    said = message(train(f"{what}:21", "--checkpoint-every", "1"))
    assert "error[R104]" in said and "rank 0 waited" in said
    assert ("rank 1 was last heard " if what == "STOP" else "rank 1 has been at task ") in said
    assert "the last checkpoint, after " in said


@pytest.mark.slow
def test_ranks_with_other_models_do_not_begin(train: Callable[..., Result]) -> None:
    said = message(train("other:0"))
    assert "error[R111]: the ranks would not train the same: rank 1 has model Sequential of 1,274 parameters " in said
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_said_once(train: Callable[..., Result]) -> None:
    said = message(train("nan:21"))
    assert f"error[T010]: {RANK}: depth1, seed 0: the loss is not finite after step " in said
    assert "are kept in " in said


@pytest.mark.slow
def test_a_full_disk_is_said_once(train: Callable[..., Result]) -> None:
    """The checkpoint before is whole."""
    said = message(train("full:21", "--checkpoint-every", "1"))
    assert f"stage-1.safetensors: {RANK}: cannot write this file: File too large; the last checkpoint, " in said
    assert train("", "--resume", "--one-process").exit_code == 0


@pytest.mark.slow
def test_an_error_that_nothing_foresaw_shows_its_lines(
    train: Callable[..., Result], capfd: pytest.CaptureFixture[str]
) -> None:
    said = message(train("raise:21"))
    assert f"error[R112]: {RANK}: ended by ZeroDivisionError: of the user's own" in said
    assert "model.py" in said + capfd.readouterr().err


def started_by_hand(port: int, world: int, timeout: str) -> subprocess.CompletedProcess[str]:
    """Rank 0 of a plan for two, without the others."""
    CliRunner().invoke(main, ["model.py", "--devices", "2", "--out", "two.plan"], catch_exceptions=False)
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(world), "MASTER_ADDR": "localhost",
             "MASTER_PORT": str(port)}  # fmt: skip
    words = ["-m", "reclra_compile.run", "two.plan", "model.py", "--rank-timeout", timeout]
    return subprocess.run([sys.executable, *words], env={**os.environ, **place}, text=True, capture_output=True,
                          timeout=TIMEOUT)  # fmt: skip


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = started_by_hand(port, 2, "5")
    assert done.returncode == 2
    assert "error[R107]" in done.stderr and str(port) in done.stderr and "give a free port" in done.stderr


def test_ranks_that_never_come_are_not_waited_for_longer_than_said() -> None:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    done = started_by_hand(port, 2, "2")
    assert done.returncode == 2
    assert "error[R107]" in done.stderr
    assert "give a longer --rank-timeout" in done.stderr
