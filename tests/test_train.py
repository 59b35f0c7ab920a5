"""Training from the command line: results, files, resuming, and how it ends when something goes wrong."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from reclra_compile.cli.main import main
from reclra_compile.cli.training_view import TrainingView
from reclra_compile.ir import Plan, Training
from reclra_compile.train import checkpoint
from reclra_compile.train.loop import rate

ROOT = Path(__file__).resolve().parent.parent
MODEL = str(ROOT / "examples" / "mlp_digits.py")
SMALL = """
import torch
from torch import nn


def build_model():
    return nn.Sequential(nn.Linear(64, {width}), nn.ReLU(), nn.Dropout(0.1), nn.Linear({width}, 32), nn.Tanh(),
                         nn.Linear(32, {classes}))


example_inputs = torch.zeros(4, {inputs})
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a small model; one thread, as a busy machine is slow with more."""
    (tmp_path / "small.py").write_text(SMALL.format(width=48, classes=10, inputs=64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECLRA_DATA", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def train(*arguments: str, model: str = "small.py", epochs: int = 2) -> Result:
    """`reclra-compile train`; an exception other than an exit is a failure."""
    return CliRunner().invoke(main, ["train", model, "--epochs", str(epochs), *arguments], catch_exceptions=False)


def results(*arguments: str, **more: Any) -> list[dict[str, Any]]:
    """The results of a run as data."""
    done = train(*arguments, "--json", **more)
    assert done.exit_code == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return rows


def timeless(value: Any) -> Any:
    """A record without what differs between equal runs: the seconds, and samples per second."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "samples_per_s")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def epochs_of(log: str) -> list[dict[str, Any]]:
    """The lines of a log that are epochs."""
    lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
    assert [line["kind"] for line in lines].index("header") == 0
    return [line for line in lines if line["kind"] == "epoch"]


def weights(run_dir: str, wiring: str = "depth2", seed: int = 0) -> dict[str, Any]:
    """Model and synapses of a checkpoint."""
    state = torch.load(Path(run_dir) / wiring / f"seed{seed}" / "checkpoint.pt", weights_only=True)
    return {**state["model"], **{f"E.{k}": v for k, v in state["program"]["synapses"].items()}}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """True where all tensors agree bitwise."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# results


def test_digits_are_learned_beside_backprop() -> None:
    ours, theirs = results("--compare", "backprop", "--batch-size", "32", model=MODEL, epochs=10)
    assert (ours["wiring"], theirs["wiring"]) == ("depth2", "backprop")
    assert ours["test_error"]["mean"] < 9
    assert theirs["test_error"]["mean"] < 9
    assert ours["settings"]["batch_size"] == theirs["settings"]["batch_size"] == 32
    assert ours["flops_ratio"] > theirs["flops_ratio"] == 1
    assert len(ours["history"][0]) == 10


def test_same_seed_gives_the_same_bits() -> None:
    first, again = (results("--run-dir", name, "--seed", "3") for name in ("a", "b"))
    assert timeless(first) == timeless(again)
    assert same(weights("a", seed=3), weights("b", seed=3))
    other = results("--run-dir", "c", "--seed", "4")
    assert not same(weights("a", seed=3), weights("c", seed=4))
    assert timeless(first) != timeless(other)


def test_compared_wirings_share_weights_data_order_and_budget(folder: Path) -> None:
    wiring = "version: 1\nname: long\npathways:\n  - {from: output, to: all}\n"
    wiring += "training: {epochs: 99, batch_size: 7, lr: 0.01}\n"
    (folder / "long.yaml").write_text(wiring)
    ours, theirs = results("--compare", "long.yaml")
    assert theirs["wiring"] == "long"
    assert [len(r["history"][0]) for r in (ours, theirs)] == [2, 2]
    assert ours["settings"]["batch_size"] == theirs["settings"]["batch_size"] == 64
    assert theirs["settings"]["lr"] == 0.01
    alone = results("--wiring", "long.yaml", "--batch-size", "64")[0]
    assert timeless(alone["history"]) == timeless(theirs["history"]), "what else is compared changes nothing"


def test_equal_names_are_told_apart() -> None:
    one, two = results("--compare", "depth2", epochs=1)
    assert (one["wiring"], two["wiring"]) == ("depth2#1", "depth2#2")
    assert timeless(one["history"]) == timeless(two["history"])


def test_several_seeds_give_mean_and_deviation() -> None:
    done = train("--seeds", "2", "--compare", "backprop")
    assert done.exit_code == 0
    assert len(re.findall(r"\d+\.\d\d ± \d+\.\d\d %", done.stdout)) >= 4
    assert "seeds 0 to 1" in done.stdout
    row = results("--seeds", "2")[0]
    assert row["seeds"] == [0, 1]
    a, b = row["test_error"]["each"]
    assert row["test_error"]["mean"] == pytest.approx((a + b) / 2)
    assert row["test_error"]["std"] == pytest.approx(abs(a - b) / 2**0.5)


def test_summary_makes_the_comparison_clear() -> None:
    text = train("--compare", "backprop").stdout
    ours, theirs = (re.search(rf"^{w} +(\d+\.\d\d) %", text, re.MULTILINE) for w in ("depth2", "backprop"))
    assert ours
    assert theirs
    difference = float(ours[1]) - float(theirs[1])
    side = "above" if difference > 0 else "below"
    assert f"depth2: test error {ours[1]} %, {abs(difference):.2f} points {side} backprop's {theirs[1]} %" in text
    assert "same weights, data order, batches and epochs for all" in text
    assert "digits: 1,437 training and 360 test images, 2 epochs of batch 64, seed 0" in text
    assert max(map(len, text.splitlines())) <= 80


def test_validation_images_are_held_out() -> None:
    done = train("--validation", "200", "--log", "epochs.jsonl")
    assert "valid %" in done.stdout
    assert "1,237 training" in done.stdout
    assert epochs_of("epochs.jsonl")[0]["valid_error"] > 0
    assert "valid %" not in train().stdout


def test_settings_come_from_flags_then_wiring() -> None:
    flags = ("--optimizer", "sgd", "--lr", "0.05", "--weight-decay", "0", "--schedule", "cosine", "--clip", "1")
    settings = results(*flags, "--batch-size", "64", epochs=1)[0]["settings"]
    expected = {"optimizer": "sgd", "lr": 0.05, "weight_decay": 0.0, "schedule": "cosine", "clip": 1.0}
    assert settings.items() >= {**expected, "batch_size": 64, "epochs": 1}.items()
    assert results(epochs=1)[0]["settings"]["weight_decay"] == 0.1
    assert "adam, lr 0.002 linear" in train("--optimizer", "adam", epochs=1).stdout


@pytest.mark.parametrize(
    ("schedule", "at", "factor"),
    [("constant", 0.7, 1.0), ("linear", 0.0, 1.0), ("linear", 0.75, 0.25), ("cosine", 0.5, 0.5), ("cosine", 1.0, 0.0)],
)
def test_schedules(schedule: str, at: float, factor: float) -> None:
    assert rate(Training(schedule=schedule), at) == pytest.approx(factor)


def test_polynomial_schedule_ends_at_its_rate() -> None:
    settings = Training(schedule="polynomial", lr=1e-2, lr_end=1e-5, power=2.0, warmup=0.2)
    rates = [settings.lr * rate(settings, at) for at in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0.0, 5e-3, 1e-2, 1e-5 + (1e-2 - 1e-5) * 0.25, 1e-5])
    straight = replace(settings, power=1.0, lr_end=0.0, warmup=0.0)
    assert rate(straight, 0.3) == pytest.approx(rate(replace(straight, schedule="linear"), 0.3))


def test_warmup_from_1_on_counts_epochs() -> None:
    settings = Training(schedule="constant", warmup=40, epochs=160)
    assert [rate(settings, epoch / 160) for epoch in (0, 10, 40, 100)] == pytest.approx([0, 0.25, 1, 1])
    assert rate(replace(settings, warmup=0.25), 0.1) == pytest.approx(rate(settings, 0.1))


def test_polynomial_schedule_of_a_run() -> None:
    flags = ("--schedule", "polynomial", "--lr", "0.01", "--lr-end", "1e-5", "--warmup", "1", "--log", "e.jsonl")
    text = train(*flags, epochs=3).stdout
    assert "lr 0.01 polynomial to 1e-05 after a warm-up of 1 epoch" in text
    steps = 23  # 1437 images in batches of 64; each record has the rate of its epoch's last step
    seen = [line["lr"] for line in epochs_of("e.jsonl")]
    decay = [1e-5 + (1e-2 - 1e-5) * (1 - (k * steps - 1 - steps) / (2 * steps)) for k in (2, 3)]
    assert seen == pytest.approx([0.01 * (steps - 1) / steps, *decay])


def test_warmup_that_leaves_nothing_is_refused() -> None:
    done = train("--warmup", "40")
    assert done.exit_code == 2
    assert "error[T026]: the warm-up takes 40 epochs, the run has 2" in done.stderr


def test_checkpoint_from_before_a_setting_was_added_is_resumed() -> None:
    train("--run-dir", "runs")
    file = Path("runs/depth2/seed0/checkpoint.pt")
    state = torch.load(file, weights_only=True)
    del state["settings"]["lr_end"]
    torch.save(state, file)
    assert train("--run-dir", "runs", "--resume").exit_code == 0
    assert "lr_end was 0.0 and is 0.1" in train("--run-dir", "runs", "--resume", "--lr-end", "0.1").stderr


# files


def test_log_has_every_epoch_of_every_run() -> None:
    train("--compare", "backprop", "--seeds", "2", "--log", "epochs.jsonl")
    lines = epochs_of("epochs.jsonl")
    assert [(e["wiring"], e["seed"], e["epoch"]) for e in lines] == [
        (w, s, e) for w in ("depth2", "backprop") for s in (0, 1) for e in (1, 2)
    ]
    keys = {"loss", "train_error", "valid_error", "test_error", "discrepancy", "lr", "seconds", "synapse_norm"}
    keys |= {"test_top5_error", "regions", "samples_per_s", "kind", "run", "step"}
    assert lines[0].keys() == keys | {"wiring", "seed", "epoch"}
    assert lines[0]["valid_error"] is None
    assert lines[1]["seconds"] > lines[0]["seconds"]
    assert sum(lines[0]["regions"].values()) == pytest.approx(lines[0]["discrepancy"])
    assert [e["step"] for e in lines[:2]] == [23, 46] and lines[0]["samples_per_s"] > 0


def test_run_dir_keeps_checkpoint_log_and_plan() -> None:
    done = train("--run-dir", "runs/first", "--graph", "graph.svg")
    assert "checkpoints: runs/first" in done.stdout
    assert "error graph: graph.svg" in done.stdout
    assert Path("graph.svg").read_text().startswith("<svg")
    place = Path("runs/first/depth2/seed0")
    assert sorted(p.name for p in place.iterdir()) == ["checkpoint.pt", "log.jsonl", "plan.txt", "run.json"]
    assert Plan.parse((place / "plan.txt").read_text()).name == "depth2"
    assert [json.loads(line)["epoch"] for line in (place / "log.jsonl").read_text().splitlines()] == [1, 2]


def test_names_of_plans_stay_in_the_run_dir(folder: Path) -> None:
    CliRunner().invoke(main, ["small.py", "--out", "net.plan"])
    text = Path("net.plan").read_text().replace("depth2", '"../../evil"', 1)
    Path("net.plan").write_text(text)
    assert train("--plan", "net.plan", "--run-dir", "runs", epochs=1).exit_code == 0
    assert len(list(folder.glob("runs/*/seed0/checkpoint.pt"))) == 1


def test_files_are_tried_before_training() -> None:
    for flags, code in (
        (("--graph", "none/g.svg"), "V004"), (("--graph", "g.pdf"), "V002"), (("--log", "none/l.jsonl"), "F001"),
        (("--run-dir", "small.py/runs"), "F002"),
    ):  # fmt: skip
        done = train(*flags)
        assert done.exit_code == 2
        assert f"error[{code}]" in done.stderr
        assert "1/2" not in done.stdout


# plans


def test_plan_trains_as_its_wiring_does() -> None:
    assert CliRunner().invoke(main, ["small.py", "-w", "depth1", "--out", "net.plan"]).exit_code == 0
    planned, wired = results("--plan", "net.plan"), results("--wiring", "depth1")
    assert planned[0]["wiring"] == "depth1"
    assert timeless(planned) == timeless(wired)


def test_plan_of_another_model_is_refused() -> None:
    CliRunner().invoke(main, [MODEL, "--out", "other.plan"])
    done = train("--plan", "other.plan")
    assert done.exit_code == 2
    assert "error[P010] other.plan: the plan was made for another model" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("none.plan", None, "P013"), ("binary.plan", b"\xff\xfe\x00", "P013"), ("text.plan", b"hello\n", "P001")],
)
def test_plan_that_cannot_be_read(name: str, content: bytes | None, code: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    done = train("--plan", name)
    assert done.exit_code == 2
    assert f"error[{code}] {name}" in done.stderr


def test_plan_and_wiring_exclude_each_other() -> None:
    assert "error[P012]" in train("--plan", "a.plan", "--wiring", "depth1").stderr


# resuming


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ctrl-C as soon as so many epochs are done and saved."""
    real = TrainingView.epoch

    def arm(count: int) -> None:
        left = [count]

        def epoch(self: TrainingView, *rest: Any) -> None:
            real(self, *rest)
            left[0] -= 1
            if left[0] == 0:
                monkeypatch.setattr(TrainingView, "epoch", real)
                raise KeyboardInterrupt

        monkeypatch.setattr(TrainingView, "epoch", epoch)

    return arm


# Devices and microbatches


def test_devices_in_microbatches_learn_as_one(folder: Path) -> None:
    """No operation of this model mixes samples or draws: only sums are taken in another order."""
    text = (folder / "small.py").read_text().replace("nn.Dropout(0.1)", "nn.Identity()")
    (folder / "still.py").write_text(text)
    train("--run-dir", "one", "-w", "depth1", model="still.py", epochs=1)
    done = train("--run-dir", "two", "-w", "depth1", "--devices", "2", "--one-process", "--microbatches", "4",
                 "--pin", "5=1", model="still.py", epochs=1)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    plan = Plan.parse(Path("two/depth1/seed0/plan.txt").read_text())
    assert (len(plan.devices), plan.schedule.microbatches, plan.placement.of("5")) == (2, 4, 1)
    one, two = weights("one", "depth1"), weights("two", "depth1")
    for name, w in one.items():
        torch.testing.assert_close(w, two[name], rtol=1e-2, atol=2e-3)


def test_stale_run_resumes_exactly(stop_after: Callable[[int], None]) -> None:
    flags = ("--staleness", "1", "--microbatches", "2", "-w", "depth1")
    train("--run-dir", "whole", *flags, epochs=3)
    stop_after(2)
    assert train("--run-dir", "cut", *flags, epochs=3).exit_code == 130
    assert train("--run-dir", "cut", *flags, "--resume", epochs=3).exit_code == 0
    assert same(weights("whole", "depth1"), weights("cut", "depth1"))
    train("--run-dir", "fresh", "-w", "depth1", "--microbatches", "2", epochs=3)
    assert not same(weights("whole", "depth1"), weights("fresh", "depth1"))


def test_a_run_goes_on_with_the_microbatches_it_was_begun_with() -> None:
    train("--run-dir", "runs", "-w", "depth1", "--microbatches", "2", epochs=1)
    done = train("--run-dir", "runs", "-w", "depth1", "--microbatches", "3", "--resume", epochs=1)
    assert done.exit_code == 2
    assert "made with microbatches 2, not 3" in done.stderr
    assert "--microbatches 2" in done.stderr
    assert train("--run-dir", "runs", "-w", "depth1", "--microbatches", "2", "--resume", epochs=1).exit_code == 0


def test_a_profile_alone_leaves_the_wirings_devices() -> None:
    text = "version: 1\nschedule: {devices: 2}\npathways:\n  - {from: output, to: all}\n"
    Path("two.yaml").write_text(text)
    flags = ("--device-profile", "h100", "--one-process", "--run-dir", "runs")
    assert train("-w", "two.yaml", *flags, epochs=1).exit_code == 0
    plan = Path("runs/two/seed0/plan.txt").read_text()
    assert plan.count("\ndevice ") == 2
    assert "kind=h100" in plan


def test_the_last_batch_of_an_epoch_may_be_small() -> None:
    """1,438 images in batches of 700 leave 38 for the last one."""
    (run,) = results("--microbatches", "64", "--batch-size", "700", "-w", "depth1", epochs=1)
    assert len(run["history"][0]) == 1


def test_a_plan_says_itself_what_devices_it_is_for() -> None:
    CliRunner().invoke(main, ["small.py", "--out", "net.plan", "--microbatches", "2"], catch_exceptions=False)
    assert train("--plan", "net.plan", epochs=1).exit_code == 0
    done = train("--plan", "net.plan", "--devices", "2")
    assert (done.exit_code, "P012" in done.stderr) == (2, True)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resumed_run_equals_an_uninterrupted_one(stop_after: Callable[[int], None], optimizer: str) -> None:
    flags = ("--optimizer", optimizer, "--lr", "0.01")
    whole = results("--run-dir", "whole", "--log", "whole.jsonl", *flags, epochs=4)
    stop_after(2)
    stopped = train("--run-dir", "parts", "--log", "parts.jsonl", *flags, epochs=4)
    assert stopped.exit_code == 130
    assert stopped.stderr == "interrupted: finished epochs are kept; the same command with --resume goes on\n"
    torch.rand(7)  # whatever else draws random numbers meanwhile
    parts = results("--run-dir", "parts", "--log", "parts.jsonl", "--resume", *flags, epochs=4)
    assert timeless(parts) == timeless(whole)
    assert same(weights("parts"), weights("whole"))
    logs = [epochs_of(f"{name}.jsonl") for name in ("whole", "parts")]
    assert timeless(logs[0]) == timeless(logs[1])


def test_resume_goes_on_with_the_run_that_was_stopped(stop_after: Callable[[int], None]) -> None:
    stop_after(3)
    assert train("--run-dir", "runs", "--seeds", "2").exit_code == 130
    done = train("--run-dir", "runs", "--seeds", "2", "--resume")
    assert done.exit_code == 0
    assert done.stdout.count("from the checkpoint") == 2
    assert timeless(results("--run-dir", "runs", "--seeds", "2", "--resume")) == timeless(results("--seeds", "2"))


def test_constant_rate_can_be_extended() -> None:
    train("--run-dir", "a", "--schedule", "constant", epochs=1)
    assert train("--run-dir", "a", "--schedule", "constant", "--resume", epochs=3).exit_code == 0
    train("--run-dir", "b", "--schedule", "constant", epochs=3)
    assert same(weights("a"), weights("b"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--lr", "0.5"), "other settings: lr was 0.002 and is 0.5"),
        (("--batch-size", "32"), "other settings: batch_size was 64 and is 32"),
        (("--validation", "100"), "training images was 1437 and is 1337"),
        (("--epochs", "5"), "other settings: epochs was 2 and is 5"),
    ],
)
def test_resume_with_other_settings_is_refused(flags: tuple[str, ...], message: str) -> None:
    train("--run-dir", "runs")
    before = Path("runs/depth2/seed0/checkpoint.pt").read_bytes()
    done = train("--run-dir", "runs", "--resume", *flags)
    assert done.exit_code == 2
    assert "error[T021] runs/depth2/seed0/checkpoint.pt: the checkpoint was made with" in done.stderr
    assert message in done.stderr
    assert Path("runs/depth2/seed0/checkpoint.pt").read_bytes() == before


def test_resume_with_another_model_or_wiring_is_refused(folder: Path) -> None:
    wiring = "version: 1\nname: mine\npathways:\n  - {from: output, to: all}\n"
    (folder / "mine.yaml").write_text(wiring)
    train("--run-dir", "runs", "--wiring", "mine.yaml", epochs=1)
    plan = Path("runs/mine/seed0/plan.txt").read_text()
    (folder / "mine.yaml").write_text(wiring.replace("all}", "all, kernel: {low_rank: 2}}"))
    done = train("--run-dir", "runs", "--wiring", "mine.yaml", "--resume", epochs=1)
    assert done.exit_code == 2
    assert "belongs to another wiring, or to an edited one" in done.stderr
    (folder / "mine.yaml").write_text(wiring + "about: the same wiring, with another text\n")
    (folder / "small.py").write_text("\n\n" + SMALL.format(width=48, classes=10, inputs=64))
    assert train("--run-dir", "runs", "--wiring", "mine.yaml", "--resume", epochs=1).exit_code == 0
    (folder / "small.py").write_text(SMALL.format(width=50, classes=10, inputs=64))
    done = train("--run-dir", "runs", "--wiring", "mine.yaml", "--resume", epochs=1)
    assert done.exit_code == 2
    assert "belongs to another model" in done.stderr
    assert Plan.parse(Path("runs/mine/seed0/plan.txt").read_text()).fingerprint == Plan.parse(plan).fingerprint


def test_resume_needs_something_to_resume() -> None:
    assert "error[T022]: --resume needs --run-dir" in train("--resume").stderr
    done = train("--resume", "--run-dir", "runs")
    assert done.exit_code == 2
    assert "error[T020] runs/depth2/seed0/checkpoint.pt: there is no checkpoint to resume" in done.stderr


def test_fresh_run_does_not_replace_an_earlier_one() -> None:
    train("--run-dir", "runs", epochs=1)
    before = Path("runs/depth2/seed0/checkpoint.pt").read_bytes()
    done = train("--run-dir", "runs", "--seeds", "2", epochs=1)
    assert done.exit_code == 2
    assert "error[T024] runs/depth2/seed0/checkpoint.pt: an earlier run has left its checkpoint here" in done.stderr
    assert "fix: go on with --resume, or name another --run-dir" in done.stderr
    assert Path("runs/depth2/seed0/checkpoint.pt").read_bytes() == before
    assert train("--run-dir", "runs", "--wiring", "depth1", epochs=1).exit_code == 0


def damaged(data: bytes) -> dict[str, bytes]:
    """Ways a checkpoint can be damaged."""
    return {"empty": b"", "cut": data[: len(data) // 2], "text": b"not a checkpoint", "zeros": bytes(len(data))}


@pytest.mark.parametrize("how", ["empty", "cut", "text", "zeros", "other", "incomplete", "misshapen"])
def test_damaged_checkpoint_is_refused(how: str) -> None:
    train("--run-dir", "runs", epochs=1)
    file = Path("runs/depth2/seed0/checkpoint.pt")
    state = torch.load(file, weights_only=True)
    if how == "other":
        torch.save({"weights": torch.zeros(2)}, file)
    elif how == "incomplete":
        del state["optimizer"]
        torch.save(state, file)
    elif how == "misshapen":
        state["model"] = {k: v[:1] for k, v in state["model"].items()}
        torch.save(state, file)
    else:
        file.write_bytes(damaged(file.read_bytes())[how])
    done = train("--run-dir", "runs", "--resume", epochs=1)
    assert done.exit_code == 2
    assert "error[T020] runs/depth2/seed0/checkpoint.pt: " in done.stderr
    assert "fix: " in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_checkpoint_is_written_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    train("--run-dir", "runs", "--schedule", "constant", epochs=1)
    place = Path("runs/depth2/seed0")
    before = (place / "checkpoint.pt").read_bytes()

    def full_disk(state: Any, file: Any) -> None:
        file.write(b"half of a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full_disk)
    done = train("--run-dir", "runs", "--schedule", "constant", "--resume", epochs=2)
    assert done.exit_code == 2
    assert "cannot write this file: No space left on device" in done.stderr
    assert (place / "checkpoint.pt").read_bytes() == before
    assert sorted(p.name for p in place.iterdir()) == ["checkpoint.pt", "log.jsonl", "plan.txt", "run.json"]


# mistakes and bad luck


def test_divergence_names_the_region_and_keeps_the_last_good_epoch() -> None:
    train("--run-dir", "runs", "--schedule", "constant", "--optimizer", "sgd", "--lr", "1e6", epochs=1)
    assert not list(Path("runs").glob("*/*/checkpoint.pt"))
    done = train("--optimizer", "sgd", "--lr", "1e6", "--compare", "backprop")
    assert done.exit_code == 2
    message = r"error\[T010\]: depth2, seed 0: \w+ \w+ is not finite after step \d+ \(epoch 1\); "
    assert re.match(message + r"the first region that is not finite is '[0-9]'", done.stderr)
    assert "fix: lower --lr" in done.stderr
    assert json.loads(train("--optimizer", "sgd", "--lr", "1e6", "--json").stdout)["errors"][0]["code"] == "T010"


def test_divergence_in_a_later_epoch_keeps_the_last_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real = TrainingView.epoch

    def poison(self: TrainingView, member: Any, run: Any, epoch: Any) -> None:
        real(self, member, run, epoch)
        if epoch.epoch == 2:
            with torch.no_grad():
                next(p for n, p in run.program.model.named_parameters() if n == "3.weight")[0, 0] = float("nan")

    monkeypatch.setattr(TrainingView, "epoch", poison)
    done = train("--run-dir", "runs", "--compare", "backprop", epochs=3)
    assert done.exit_code == 2
    assert "(epoch 3); the first region that is not finite is '3'" in done.stderr
    assert "the weights after epoch 2 are kept in runs/depth2/seed0/checkpoint.pt" in done.stderr
    state = torch.load("runs/depth2/seed0/checkpoint.pt", weights_only=True)
    assert state["epoch"] == 2
    assert all(v.isfinite().all() for v in state["model"].values())
    model = nn.Sequential(
        nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, 10)
    )
    model.load_state_dict(state["model"])
    monkeypatch.setattr(TrainingView, "epoch", real)
    assert train("--run-dir", "runs", "--compare", "backprop", "--resume", epochs=3).exit_code == 0


def test_weights_that_the_last_step_breaks_are_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    real = TrainingView.step
    steps = [0]

    def poison(self: TrainingView, member: Any, run: Any) -> None:
        real(self, member, run)
        steps[0] += 1
        if steps[0] == 2 * run.steps:  # after the last step of epoch 2, whose loss was finite
            with torch.no_grad():
                next(run.program.synapse_parameters()).fill_(float("inf"))

    monkeypatch.setattr(TrainingView, "step", poison)
    done = train("--run-dir", "runs")
    assert done.exit_code == 2
    assert "a weight is not finite after step 46 (epoch 2); all regions are finite, the error synapses '" in done.stderr
    assert torch.load("runs/depth2/seed0/checkpoint.pt", weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        ({"width": 48, "classes": 7, "inputs": 64}, "D021", "the model's output is (7,) per sample; digits has 10"),
        ({"width": 48, "classes": 10, "inputs": 65}, "M010", "the model fails on its example inputs of shape (4, 65)"),
    ],
)
def test_model_that_does_not_fit(folder: Path, model: dict[str, int], code: str, message: str) -> None:
    (folder / "small.py").write_text(SMALL.format(**model))
    done = train()
    assert done.exit_code == 2
    assert f"error[{code}]" in done.stderr
    assert message in done.stderr


def test_data_that_does_not_fit(folder: Path) -> None:
    done = train(model=str(ROOT / "examples" / "mlp_mnist.py:relu"))
    assert done.exit_code == 2
    assert "error[D010]" in done.stderr
    assert "--data mnist" in done.stderr


def test_model_with_two_inputs(folder: Path) -> None:
    (folder / "two.py").write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.fc = nn.Linear(64, 10)\n"
        "    def forward(self, x, y):\n        return self.fc(x + y)\n"
        "model = Net()\nexample_inputs = torch.zeros(4, 64), torch.zeros(4, 64)\n"
    )
    done = train(model="two.py")
    assert done.exit_code == 2
    assert "error[D020]: the model takes 2 inputs" in done.stderr


def test_every_mistake_in_one_report() -> None:
    done = train("--data", "mnist", "--device", "cudo", "--wiring", "depht1", "--compare", "depth12", model="nope.py")
    assert done.exit_code == 2
    codes = re.findall(r"^error\[(\w+)\]", done.stderr, re.MULTILINE)
    assert codes == ["D002", "T023", "W004", "W004", "M001"]
    assert "error[T023]: device 'cudo' cannot be used: torch has none of this name" in done.stderr


def test_device_without_values() -> None:
    assert "error[T023]" in train("--device", "meta").stderr


# terminals


def terminal(*arguments: str, columns: int = 80) -> str:
    """What a command shows on a terminal, without colours."""
    screen, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-m", "reclra_compile", *arguments], stdin=end, stdout=end, stderr=end,
        env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(end)
        with contextlib.suppress(OSError):  # how a terminal without programs ends
            while more := os.read(screen, 65536):
                shown += more
    os.close(screen)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_progress_on_a_terminal() -> None:
    shown = terminal("train", "small.py", "--epochs", "2", "--threads", "1", "--compare", "backprop")
    lines = re.split(r"[\r\n]+", shown)
    assert max(map(len, lines)) <= 80
    assert any("depth2, seed 0 (1 of 2) ━" in line and "/46 steps" in line and "left" in line for line in lines)
    assert any(re.search(r"epoch 2/2, .+  loss \d\.\d+  D\(Θ\) \d\.\d+e-\d\d  test ", line) for line in lines)
    assert any(line.startswith("    2/2  ") for line in lines)
    assert any(line.startswith("depth2: test error ") for line in lines)


def test_progress_is_silent_in_a_pipe() -> None:
    assert "━" not in train().stdout


def test_ctrl_c_says_what_is_kept() -> None:
    arguments = ["train", "small.py", "--epochs", "100000", "--threads", "1", "--run-dir", "runs"]
    with subprocess.Popen(
        [sys.executable, "-m", "reclra_compile", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "interrupted: finished epochs are kept; the same command with --resume goes on\n"


def test_ctrl_c_without_a_run_dir(stop_after: Callable[[int], None]) -> None:
    stop_after(1)
    done = train()
    assert done.exit_code == 130
    assert done.stderr == "interrupted: nothing is kept; with --run-dir DIR a run can be resumed\n"
