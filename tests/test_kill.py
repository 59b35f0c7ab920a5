"""Ranks that are killed under torch's launcher: what is resumed ends as if nothing had happened, bit by bit."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_job import plan_of, train, write_model
from ranks import on_ranks
from torch import Tensor

from reclra_compile.train.checkpoint import checkpoint_of
from reclra_compile.train.sharded import Sharded

TESTS = Path(__file__).parent
PATIENCE = 120  #: seconds for what takes a few


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


@pytest.mark.slow
def test_a_rank_that_is_killed(root: Path) -> None:
    """Once for good, which ends the others, and once under a launcher that starts ranks again."""
    on_ranks(2, "test_kill:uninterrupted", str(root), "3")
    chance, folder, options = random.Random(time.time_ns()), root / "run", {"every": 1, "wait": 0.05, "epochs": 3}
    with Launch(root, folder, **options) as launch:
        victims = launch.ranks()
        launch.saved()
        time.sleep(chance.uniform(0, 0.5))
        kill(chance.choice(victims))
        assert launch.ended() == 1, launch.text()
    assert whole(folder)
    with Launch(root, folder, restarts=1, resume=True, **options) as launch:
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
