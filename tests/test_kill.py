"""Processes that are killed: no checkpoint is ever torn, and what is resumed ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_job import plan_of, train, write_model
from ranks import on_ranks
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.ir import Training
from reclra_compile.train import checkpoint
from reclra_compile.train.checkpoint import checkpoint_of
from reclra_compile.train.loop import Run
from reclra_compile.train.named import weights
from reclra_compile.train.sharded import Sharded

TESTS = Path(__file__).parent
PATIENCE = 120  #: seconds for what takes a few
CALLS = {"write", "fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "chmod", "open", "fdopen"}


# one process, killed before every call that changes files


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
    code = f"import test_kill; print(test_kill.kill_everywhere({str(tmp_path)!r}, {form!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=TESTS, capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > (5 if form == "file" else 15)


# ranks under torch's launcher


class Launch:
    """Two ranks of a job under torchrun; what is left of them ends with the context."""

    def __init__(self, root: Path, folder: Path, restarts: int = 0, **options: Any) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.before = checkpoint_of(folder)
        for file in folder.glob("pid.*"):
            file.unlink()
        job = {"folder": str(folder), "plan": str(root / "two.plan"), "model": str(root / "net.py"), **options}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                   "--max-restarts", str(restarts), str(TESTS / "rank_job.py"), json.dumps(job)]  # fmt: skip
        self.said = (folder / "said.txt").open("w+")
        self.process = subprocess.Popen(
            command, stdout=self.said, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        self.known: set[int] = set()

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in self.known | set(self._pids()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.said.close()

    def ranks(self) -> list[int]:
        """The processes of ranks that were not known before, as soon as all have begun; [] where the job has ended."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = self._pids()
            if len(found) == 2 and not self.known & set(found):
                self.known |= set(found)
                return found
            if self.process.poll() is not None:
                return []
            time.sleep(0.01)
        raise AssertionError(f"ranks did not begin: {self.text()}")

    def saved(self) -> None:
        """Wait for a checkpoint that was not there before, or the end."""
        while checkpoint_of(self.folder) == self.before and self.process.poll() is None:
            time.sleep(0.01)

    def _pids(self) -> list[int]:
        texts = [f.read_text() for f in sorted(self.folder.glob("pid.*"))]
        return [int(text) for text in texts if text]

    def ended(self) -> int:
        """The launcher's exit status, once it has ended; no rank is left then."""
        status = self.process.wait(PATIENCE)
        assert not [pid for pid in self.known if alive(pid)]
        return status

    def text(self) -> str:
        """What launcher and ranks have said."""
        return (self.folder / "said.txt").read_text()


def alive(pid: int) -> bool:
    """Whether a process exists, other than as a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def kill(pid: int) -> None:
    """`kill -9`."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def whole(folder: Path) -> int:
    """Read everything of a folder's newest checkpoint, checksums included; its steps, 0 where there is none."""
    place = checkpoint_of(folder)
    return 0 if not place.exists() else int(place.name[5:]) * bool(everything(folder))


def everything(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's newest checkpoint."""
    source = Sharded(checkpoint_of(folder))
    return {name: source.take(name) for name in sorted(source.names)}


def epochs(folder: Path) -> list[Any]:
    """The history of a job that has ended, without times."""
    return [{k: v for k, v in e.items() if k != "seconds"} for e in json.loads((folder / "history.json").read_text())]


def assert_same(folder: Path, other: Path) -> None:
    """Weights, synapses, optimizers, random states and history of two runs agree bit by bit."""
    one, two = everything(folder), everything(other)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert epochs(folder) == epochs(other)


def uninterrupted(root: str, count: str) -> None:
    """A rank of a job that nothing happens to."""
    from reclra_compile.distributed.mesh import connect

    place, mesh = Path(root), connect(2)
    plan = plan_of(place / "net.py", 2)
    result, _ = train(place / "net.py", plan, place / "calm", mesh, epochs=int(count))
    if mesh.rank == 0:
        (place / "two.plan").write_text(str(plan))
        (place / "calm" / "history.json").write_text(json.dumps([e.as_json() for e in result.history]))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    write_model(tmp_path)
    return tmp_path


def test_a_rank_that_is_killed(root: Path) -> None:
    """Once for good, which ends the others, and twice under a launcher that starts ranks again."""
    on_ranks(2, "test_kill:uninterrupted", str(root), "5")
    chance, folder, options = random.Random(time.time_ns()), root / "run", {"every": 1, "wait": 0.05, "epochs": 5}
    with Launch(root, folder, **options) as launch:
        victims = launch.ranks()
        launch.saved()
        time.sleep(chance.uniform(0, 0.5))
        kill(chance.choice(victims))
        assert launch.ended() == 1, launch.text()
    assert whole(folder)
    with Launch(root, folder, restarts=2, resume=True, **options) as launch:
        for _ in range(2):
            victims = launch.ranks()
            time.sleep(chance.uniform(0, 1.5))
            if victims:
                kill(chance.choice(victims))
        assert launch.ended() == 0, launch.text()
    assert_same(folder, root / "calm")


@pytest.mark.slow
def test_fifty_kills(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kills, count = int(os.environ.get("RECLRA_KILLS", "50")), 300
    seed = int(os.environ.get("RECLRA_SEED", "0")) or time.time_ns()
    on_ranks(2, "test_kill:uninterrupted", str(root), str(count))
    chance, folder, done, steps, waits = random.Random(seed), root / "run", 0, 0, []
    while True:
        with Launch(root, folder, resume=folder.exists(), every=1, wait=0.0, epochs=count) as launch:
            victims = launch.ranks()
            if done < kills:
                if chance.random() < 0.8:  # while it trains and saves; or else at any time from its beginning
                    launch.saved()
                time.sleep(chance.uniform(0, 1))
                running = launch.process.poll() is None and all(map(alive, victims))
                kill(chance.choice(victims))
                killed = time.monotonic()
                status = launch.ended()
                waits.append(time.monotonic() - killed)
                assert status == 1 or not running or (folder / "history.json").exists(), launch.text()
                done += running
            else:
                assert launch.ended() == 0, launch.text()
        now = whole(folder)
        assert now >= steps, f"seed {seed}"
        steps = now
        if (folder / "history.json").exists():
            assert_same(folder, root / "calm")
            if done >= kills:
                break
            shutil.rmtree(folder)
            steps = 0
    with capsys.disabled():
        print(f"{done} kills, the launcher ended after {max(waits):.1f} s at most")
