"""The command that run.json and logs keep, as it can be given again."""

from __future__ import annotations

from pathlib import Path

import pytest

from reclra_compile.cli.main import main
from reclra_compile.cli.run_command import run as rank
from reclra_compile.cli.training_records import command_of
from reclra_compile.train.environment import command_line


def test_commands_can_be_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["small.py", "-c", "backprop", "-c", "my.yaml", "--lr", "1e-3", "--top5", "--resume", "--json"]
    context = main.commands["train"].make_context("train", [*words, "--epochs=2"])
    assert " ".join(command_of(context)) == (
        "reclra-compile train small.py --compare backprop --compare my.yaml --epochs 2 --lr 0.001 --top5"
    )
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    context = rank.make_context("run", ["four.plan", "small.py", "--log", "e.jsonl", "--label", "hidden"])
    assert " ".join(command_of(context)) == (
        "torchrun --nproc-per-node 4 -m -- reclra_compile.run four.plan small.py --log e.jsonl"
    )


def test_home_is_not_named() -> None:
    home = str(Path.home())
    words = command_line(["train", f"{home}/m.py:net", f"--data-dir={home}", f"{home}less/m.py"])
    assert words == ["reclra-compile", "train", "$HOME/m.py:net", "--data-dir=$HOME", f"{home}less/m.py"]
