"""Saves that are killed before any of their calls: the newest checkpoint is whole, and the next save tidies up."""

from __future__ import annotations

import json
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
from reclra_compile import files
from reclra_compile.errors import Fault, RankError, UserError
from reclra_compile.ir import Training
from reclra_compile.runtime.peers import Alone
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


@pytest.mark.parametrize("form", [pytest.param("file", marks=pytest.mark.slow), "shards"])
def test_a_save_may_be_killed_anywhere(tmp_path: Path, form: str) -> None:
    code = f"import test_torn; print(test_torn.kill_everywhere({str(tmp_path)!r}, {form!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=TESTS, capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= (5 if form == "file" else 15)


# what is left behind, and what is not ours


def tree(folder: Path) -> list[str]:
    """All files and folders below one."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def shards_of(steps: int) -> list[str]:
    """What a checkpoint of one rank is made of."""
    place = f"checkpoint/step-{steps:08d}"
    return [place, *(f"{place}/{f}" for f in ("common.safetensors", "manifest.json", "stage-0.safetensors"))]


def test_a_folder_that_hosts_do_not_share(tmp_path: Path) -> None:
    """A rank's shard is on another host's disk: the save fails, and the checkpoint before stays."""
    run = small_run("shards")
    checkpoint.keep(tmp_path, run, [], {})
    advance(run)
    elsewhere = {"losses": 0.0, "shards": [{"file": "stage-1.safetensors", "bytes": 9, "tensors": []}], "faults": []}

    class Two(One):
        count = stages = 2

        def gather(self, text: str) -> list[str]:
            return [text, json.dumps(elsewhere if text.startswith("{") else [])]

    run.program.peers = Two()
    with pytest.raises(UserError, match="a shard that another rank wrote is not there") as caught:
        checkpoint.keep(tmp_path, run, [], {})
    assert caught.value.faults[0].code == "F001"
    assert "name a --run-dir that all hosts share" in str(caught.value)
    assert tree(tmp_path) == ["checkpoint", *shards_of(1)]


@pytest.mark.parametrize("name", ["common.safetensors", "stage-0.safetensors", "manifest.json"])
def test_a_full_disk_gets_its_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    run = small_run("shards")
    checkpoint.keep(tmp_path, run, [], {})
    advance(run)
    real = files._replace

    def full(target: Path, write: Any) -> None:
        if target.name == name:
            raise OSError(28, "No space left on device")
        real(target, write)

    monkeypatch.setattr(files, "_replace", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoint.keep(tmp_path, run, [], {})
    assert tree(tmp_path) == ["checkpoint", *shards_of(1)]


def test_a_rank_that_is_lost_removes_nothing(tmp_path: Path) -> None:
    """Its manifest may have been written."""
    run = small_run("shards")

    class Lost(One):
        count = 2

        def gather(self, text: str) -> list[str]:
            if text.startswith("{"):
                return [text, json.dumps({"losses": 0.0, "shards": [], "faults": []})]
            raise RankError(Fault("R105", "rank 1 is lost"))

    run.program.peers = Lost()
    with pytest.raises(RankError):
        checkpoint.keep(tmp_path, run, [], {})
    assert tree(tmp_path) == ["checkpoint", *shards_of(1)]


def test_a_run_begins_with_the_room_of_cut_saves(tmp_path: Path) -> None:
    run = small_run("shards")
    checkpoint.keep(tmp_path, run, [], {})
    torn = tmp_path / "checkpoint" / "step-00000002"
    torn.mkdir()
    (torn / "common.safetensors").touch()
    (torn / ".stage-0.safetensors.ab_d3fgh").touch()
    for resumes in (True, False):
        checkpoint.begin(tmp_path, run, {}, resumes)
        assert tree(tmp_path) == ["checkpoint", *shards_of(1)]


@pytest.mark.parametrize("form", ["file", "shards"])
def test_what_is_not_ours_stays(tmp_path: Path, form: str) -> None:
    run = small_run("shards")
    checkpoint.keep(tmp_path, run, [], {})
    own = ["checkpoint/notes.txt", "checkpoint/step-00000001/notes.txt", "checkpoint/step-one/manifest.json",
           "checkpoint/step-1-copy/common.safetensors", ".checkpoint.pt.backup", ".log.jsonl.swp"]  # fmt: skip
    for name in own:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".checkpoint.pt.ab_d3fgh").touch()
    if form == "file":
        run.program.peers = Alone()
    advance(run)
    checkpoint.keep(tmp_path, run, [], {})
    new = ["checkpoint.pt"] if form == "file" else shards_of(2)[1:]
    assert [f for f in tree(tmp_path) if (tmp_path / f).is_file()] == sorted([*own, *new])


@pytest.mark.parametrize("form", ["file", "shards"])
def test_what_cannot_be_removed_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    run = small_run("shards")
    checkpoint.keep(tmp_path, run, [], {})
    checkpoint.save(tmp_path / "checkpoint.pt", run, [], {})
    (tmp_path / "checkpoint" / "step-00000001" / "stage-9.safetensors").touch()
    if form == "file":
        run.program.peers = Alone()
    advance(run)

    def busy(*_: Any, **__: Any) -> None:
        raise OSError(16, "Device or resource busy")

    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(Path, name, busy)
        monkeypatch.setattr(os, name, busy)
    checkpoint.keep(tmp_path, run, [], {})
    checkpoint.begin(tmp_path, run, {}, False)
    checkpoint.resume(tmp_path / "checkpoint.pt" if form == "file" else checkpoint_of(tmp_path), run, {})
    assert run.done == 2


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_names_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is synced after a file is moved into it, or a folder made in it."""
    seen: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            seen.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
            raise OSError(22, "a file system that cannot")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    files.make_folder(tmp_path / "a" / "b")
    assert seen == ["a", tmp_path.name]
    files.write_text(tmp_path / "a" / "b" / "file", "text")
    assert seen[2:] == ["b"]
