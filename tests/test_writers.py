"""Where numbers of training go: lines of JSON, TensorBoard, run.json, and what the progress display says."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import reclra_compile as rc
from reclra_compile.cli.main import main
from reclra_compile.cli.training_view import TrainingView
from reclra_compile.errors import UserError
from reclra_compile.train import checkpoint
from reclra_compile.train.jsonl import JsonLines, lines_of
from reclra_compile.train.tensorboard import TensorBoard
from reclra_compile.train.writers import Log, Record

SMALL = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
example_inputs = torch.zeros(4, 64)
"""
FLAGS = ("--epochs", "2", "--batch-size", "500", "--threads", "1")  # three steps in an epoch


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(SMALL)
    return tmp_path


def train(*arguments: str) -> Result:
    """`reclra-compile train`; an exception other than an exit is a failure."""
    return CliRunner().invoke(main, ["train", "small.py", *FLAGS, *arguments], catch_exceptions=False)


def lines(name: str = "log.jsonl") -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def kinds(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Kind, run and step of each line."""
    return [(line["kind"], line.get("run"), line.get("step")) for line in found]


def record(step: int, epoch: int = 1, **values: float) -> Record:
    """A record of a run."""
    return Record("run", epoch, step, values, {"fc": 0.5})


# the command


def test_a_log_begins_with_what_is_run_and_has_the_steps_that_are_asked_for() -> None:
    assert train("--log", "log.jsonl", "--log-every", "2").exit_code == 0
    header, *rest = lines()
    assert header["kind"] == "header" and header["format"] == 1 and header["model"] == "Sequential"
    assert header["command"][:3] == ["reclra-compile", "train", "small.py"] and "--log-every" in header["command"]
    (run,) = header["runs"]
    assert (run["run"], run["wiring"], run["seed"]) == ("depth2/seed0", "depth2", 0)
    assert run["settings"]["epochs"] == 2 and re.fullmatch(r"m[0-9a-f]+", run["fingerprint"])
    assert header["environment"]["torch"] == torch.__version__ and header["environment"]["threads"] == 1
    assert [k[0::2] for k in kinds(rest)] == [("step", 2), ("epoch", 3), ("step", 4), ("step", 6), ("epoch", 6)]
    assert rest[0]["epoch"] == 1 and rest[2]["epoch"] == 2
    for line in rest:
        assert sum(line["regions"].values()) == pytest.approx(line["discrepancy"])
    assert rest[3]["discrepancy"] == rest[4]["discrepancy"] and rest[3]["loss"] != rest[4]["loss"]


def test_a_resumed_log_has_each_step_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is stopped after its fourth step, of which two stand in the log and none in the checkpoint."""
    flags = ("--log-every", "1", "--run-dir", "runs", "--seeds", "2")
    train("--log", "whole.jsonl", "--log-every", "1", "--seeds", "2")
    real = TrainingView.step

    def step(self: TrainingView, member: Any, run: Any) -> None:
        real(self, member, run)
        if run.taken == 6:
            monkeypatch.setattr(TrainingView, "step", real)
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingView, "step", step)
    assert train("--log", "log.jsonl", *flags).exit_code == 130
    assert kinds(lines())[-1] == ("step", "depth2/seed0", 5)
    with Path("log.jsonl").open("a") as file:
        file.write('{"kind": "step", "run": "depth2/se')  # as a crash leaves it
    assert train("--log", "log.jsonl", "--resume", *flags).exit_code == 0
    resumed = [k for k, line in enumerate(lines()) if line["kind"] == "resumed"]
    assert len(resumed) == 1 and lines()[resumed[0]]["environment"]["torch"] == torch.__version__
    whole = lines("whole.jsonl")[1:]
    mine = [line for line in lines()[1:] if line["kind"] != "resumed"]
    assert kinds(mine) == kinds(whole)
    assert [line["loss"] for line in mine] == [line["loss"] for line in whole]


def test_a_step_that_a_checkpoint_holds_is_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is stopped at once after the checkpoint of its second step is saved."""
    flags = ("--log", "log.jsonl", "--log-every", "1", "--checkpoint-every", "1", "--run-dir", "runs")
    real = checkpoint.keep

    def keep(folder: Path, run: Any, *rest: Any) -> None:
        real(folder, run, *rest)
        if run.taken == 2:
            monkeypatch.setattr(checkpoint, "keep", real)
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "keep", keep)
    assert train(*flags).exit_code == 130
    assert train("--resume", *flags).exit_code == 0
    assert [line["step"] for line in lines() if line["kind"] == "step"] == [1, 2, 3, 4, 5, 6]


def test_the_log_of_another_run_is_not_taken_up() -> None:
    train("--log", "log.jsonl", "--wiring", "depth1")
    train("--run-dir", "runs")
    before = Path("log.jsonl").read_bytes()
    done = train("--run-dir", "runs", "--resume", "--log", "log.jsonl")
    assert (done.exit_code, "error[Y005] log.jsonl: " in done.stderr) == (2, True)
    assert Path("log.jsonl").read_bytes() == before


def test_run_json_says_how_a_run_came_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    model = str(Path.cwd() / "small.py")
    command = ["train", model, "--run-dir", "runs", "--schedule", "constant", "--batch-size", "500", "--threads", "1"]
    CliRunner().invoke(main, [*command, "--epochs", "1", "--json"], catch_exceptions=False)
    file = Path("runs/depth2/seed0/run.json")
    first = json.loads(file.read_text())
    assert first["command"][1:5] == ["train", "$HOME/small.py", "--epochs", "1"] and "--json" not in first["command"]
    assert first["options"]["model"] == "$HOME/small.py" and first["data"]["train"] == 1437
    assert str(Path.cwd()) not in file.read_text() and first["resumed"] == []
    CliRunner().invoke(main, [*command, "--epochs", "2", "--resume"], catch_exceptions=False)
    again = json.loads(file.read_text())
    assert again["begun"] == first["begun"] and again["settings"]["epochs"] == 2
    assert [r["step"] for r in again["resumed"]] == [3] and "--resume" not in again["resumed"][0]["command"]


# TensorBoard


def test_event_files_are_what_tensorboard_reads() -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = train("--tensorboard", "board", "--compare", "backprop", "--log-every", "3", "--log", "log.jsonl")
    assert done.exit_code == 0 and "TensorBoard: board" in done.stdout
    read = accumulator.EventAccumulator("board/depth2/seed0")
    read.Reload()
    epochs = [line for line in lines() if line["kind"] == "epoch" and line["wiring"] == "depth2"]
    for tag, key in (("loss/train", "loss"), ("error/test", "test_error"), ("discrepancy/total", "discrepancy")):
        seen = [(e.step, e.value) for e in read.Scalars(tag)]
        assert seen == [(e["step"], pytest.approx(e[key], rel=1e-5)) for e in epochs]
    terms = [e.value for e in read.Scalars("discrepancy by region/2")]
    assert terms == pytest.approx([e["regions"]["2"] for e in epochs])
    assert [e.step for e in read.Scalars("steps/loss")] == [3, 6]
    tags = read.Tags()
    assert {"rate/learning rate", "rate/samples per second"} <= set(tags["scalars"])
    assert {"run/text_summary", "wiring/text_summary"} <= set(tags["tensors"])
    (picture,) = read.Images("error graph")
    assert picture.encoded_image_string.startswith(b"\x89PNG") and picture.width > 300
    assert {p.name for p in Path("board").iterdir()} == {"depth2", "backprop"}


def test_a_run_that_goes_on_voids_what_tensorboard_had(folder: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, loss in ((1, 1.0), (2, 2.0)):
        board = TensorBoard(folder / "board")
        board.begin("run", {}, first - 1, first - 1)
        for step in range(first, 4):
            board.epoch(record(step, step, loss=loss))
        board.close()
    read = accumulator.EventAccumulator(str(folder / "board" / "run"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss/train")] == [(1, 1.0), (2, 2.0), (3, 2.0)]


def test_without_tensorboard_the_fix_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_board(name: str, *rest: Any, **more: Any) -> Any:
        if name == "torch.utils.tensorboard":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", no_board)
    done = train("--tensorboard", "board")
    assert done.exit_code == 2 and "error[Y001]" in done.stderr
    assert "pip install 'reclra-compile[tensorboard]'" in done.stderr and not Path("board").exists()


# a loop of one's own


@pytest.fixture
def program() -> rc.Program:
    """A small program."""
    torch.manual_seed(0)
    return rc.compile(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), torch.zeros(4, 8), "depth1")


def test_a_loop_of_ones_own_is_logged(program: rc.Program) -> None:
    optimizer = torch.optim.SGD(program.parameters(), lr=0.1)
    x, y = torch.rand(4, 8), torch.tensor([0, 1, 2, 0])
    losses, terms = [], []
    with Log(program, JsonLines("log.jsonl"), optimizer=optimizer, facts={"note": "mine"}) as log:
        for _ in range(2):
            optimizer.zero_grad()
            losses.append(float(program.step(x, y)))
            terms.append(program.discrepancy.regions)
            optimizer.step()
            log.step(losses[-1], samples=4, more=1.0)
        log.epoch(test_error=50.0)
    header, one, two, epoch = lines()
    assert (header["note"], header["wiring"], header["fingerprint"]) == ("mine", "depth1", program.plan.fingerprint)
    assert [one["loss"], two["loss"]] == losses and [one["regions"], two["regions"]] == terms
    assert one["lr"] == 0.1 and one["more"] == 1.0 and two["samples_per_s"] > 0
    assert (epoch["epoch"], epoch["step"], epoch["test_error"]) == (1, 2, 50.0)
    assert epoch["loss"] == pytest.approx(sum(losses) / 2)


def test_only_some_steps_are_written(program: rc.Program) -> None:
    x, y = torch.rand(4, 8), torch.tensor([0, 1, 2, 0])
    with Log(program, JsonLines("log.jsonl"), every=3, step=10) as log:
        for _ in range(6):
            log.step(program.step(x, y))
    assert [line["step"] for line in lines()[1:]] == [12, 15]


# lines of JSON


def test_a_run_that_begins_again_takes_its_later_lines_back() -> None:
    log = JsonLines("log.jsonl", {})
    for run, last in (("a", 5), ("b", 5)):
        log.begin(run, {})
        for step in range(1, last + 1):
            log.step(Record(run, 1 + step // 3, step, {"loss": 1.0}))
        log.epoch(Record(run, 1, 3, {"loss": 1.0}))
    log.begin("a", {}, 0, 2)
    log.step(Record("a", 1, 3, {"loss": 2.0}))
    log.close()
    mine = [(line["kind"], line["step"], line["loss"]) for line in lines()[1:] if line["run"] == "a"]
    assert mine == [("step", 1, 1.0), ("step", 2, 1.0), ("step", 3, 2.0)]
    assert sum(line.get("run") == "b" for line in lines()) == 6


def test_what_json_cannot_say_is_null() -> None:
    log = JsonLines("log.jsonl", {"a": float("inf")})
    log.step(record(1, loss=float("nan")))
    log.close()
    assert lines()[0]["a"] is None and lines()[1]["loss"] is None and "NaN" not in Path("log.jsonl").read_text()


def test_a_damaged_line_is_named() -> None:
    Path("log.jsonl").write_text('{"kind": "header"}\nnonsense\n{"kind": "epoch"}\n')
    with pytest.raises(UserError, match=r"log.jsonl:2: this line is not") as caught:
        list(lines_of(Path("log.jsonl")))
    assert caught.value.faults[0].code == "Y004"
    Path("log.jsonl").write_text('{"kind": "header"}\nnonsen')
    assert list(lines_of(Path("log.jsonl"))) == [{"kind": "header"}]


def test_a_full_disk_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    log = JsonLines("log.jsonl", {})
    log.step(record(1))
    assert log._file is not None
    log._file.close()

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            """Nothing is open."""

    log._file = Full()  # type: ignore[assignment]
    with pytest.raises(UserError, match="No space left") as caught:
        log.step(record(2))
    assert caught.value.faults[0].code == "F001"
