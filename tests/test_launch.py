"""Starting ranks: what they leave is followed, one cause is said, and nobody is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from faulty_ranks import MODEL

from reclra_compile.cli import launches
from reclra_compile.cli.launch_view import threads
from reclra_compile.cli.main import main
from reclra_compile.cli.train_setup import _resumes
from reclra_compile.data.sets import load
from reclra_compile.distributed import heartbeat, launch, word
from reclra_compile.distributed.handshake import agree, data_of
from reclra_compile.distributed.heartbeat import Beat, Heartbeat
from reclra_compile.distributed.launch import Launch
from reclra_compile.distributed.report import located
from reclra_compile.distributed.variables import check_variables
from reclra_compile.errors import Fault, RankError, TrainingError
from reclra_compile.runtime.peers import Alone
from reclra_compile.train.job import Member
from reclra_compile.train.replicas import check_batches

TIMEOUT = 120

#: what ranks of these tests begin with: neither torch nor a model
STUB = """
import os, signal, sys, time
from reclra_compile.distributed import word
from reclra_compile.distributed.heartbeat import Beat
from reclra_compile.errors import Fault

word.begin()
rank, attempt = int(os.environ["RANK"]), word.attempt()

def fail(code, after=0.0):
    time.sleep(after)
    word.leave("fault", rank, str(word.Said(rank, time.time(), (Fault(code, f"{code} of rank {rank}"),))))
    os._exit(2)

"""


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Run a stub on ranks; gives the events that came."""

    def run(body: str, ranks: int = 2, restarts: int = 0, on_event: Any = None) -> list[dict[str, Any]]:
        script = tmp_path / "stub.py"
        script.write_text(STUB + body)
        folder = tmp_path / "word"
        folder.mkdir()
        events: list[dict[str, Any]] = []
        Launch(
            [str(script)], ranks, folder, name=lambda r: f"rank {r} (its name)", kept=lambda: "a copy is kept",
            restarts=restarts,
        ).run(on_event or events.append)  # fmt: skip
        return events

    return run


def fault_of(started: Callable[..., Any], body: str, **more: Any) -> Fault:
    """The one fault that a launch ends with."""
    with pytest.raises(RankError) as caught:
        started(body, **more)
    (fault,) = caught.value.faults
    return fault


def test_events_come_whole_and_in_order(started: Callable[..., Any]) -> None:
    events = started("""
if rank == 0:
    events = word.Events(word.folder() / word.EVENTS)
    for k in range(300):
        events.write("step", taken=k)
""")
    assert [e["taken"] for e in events] == list(range(300))


def test_the_cause_comes_before_what_others_saw_of_it(started: Callable[..., Any]) -> None:
    fault = fault_of(started, """
other = word.folder() / f"fault.0.{1 - rank}"
if rank == 0:
    while not other.exists():
        time.sleep(0.01)
    fail("R105")
said = word.Said(rank, time.time(), (Fault("T010", "the loss"),))
word.leave("fault", rank, str(said))
while not other.exists():
    time.sleep(0.01)
sys.exit(2)
""")  # fmt: skip
    assert (fault.code, fault.message) == ("T010", "the loss")


def test_faults_are_sorted_by_cause_then_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(word.FOLDER, str(tmp_path))
    for rank, code, when in ((0, "R105", 1.0), (1, "T010", 3.0), (2, "F001", 2.0), (3, "R104", 0.5)):
        word.leave("fault", rank, str(word.Said(rank, when, (Fault(code, "text", None, "fix"),), "trace")))
    assert [s.rank for s in word.said(tmp_path, 0)] == [2, 1, 3, 0]
    assert word.said(tmp_path, 0)[0].faults == (Fault("F001", "text", None, "fix"),)
    assert word.said(tmp_path, 1) == []


def test_a_killed_rank_is_named_with_its_place(started: Callable[..., Any]) -> None:
    fault = fault_of(started, """
if rank == 1:
    word.leave("place", rank, str(Beat((16, "F 4", 1), 0.0, 0.0)))
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(0.3)
fail("R105")
""")  # fmt: skip
    assert fault.code == "R110"
    assert fault.message == (
        "rank 1 (its name) was ended by SIGKILL, last heard at task 'F 4' of microbatch 2, step 17; a copy is kept"
    )


def test_a_rank_that_ends_without_a_word_is_named(
    started: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    fault = fault_of(started, """
print("what it printed last", file=sys.stderr)
sys.exit(3) if rank else time.sleep(60)
""")  # fmt: skip
    assert "rank 1 (its name) ended with status 3, before it was heard" in fault.message
    assert capfd.readouterr().err == "what it printed last\n"


@pytest.mark.parametrize(("end", "how"), [("os._exit(7)", "with status 7"),
                                          ("os.kill(os.getpid(), signal.SIGTERM)", "by SIGTERM")])  # fmt: skip
def test_a_rank_that_ends_without_a_word_comes_before_what_others_saw(
    started: Callable[..., Any], end: str, how: str
) -> None:
    fault = fault_of(started, f"""
if rank == 1:
    word.leave("end", rank, "")
    {end}
while not (word.folder() / "end.0.1").exists():
    time.sleep(0.01)
time.sleep(60) if rank == 0 else fail("R105", 0.05)
""", ranks=3)  # fmt: skip
    assert fault.code == "R110" and fault.message.startswith(f"rank 1 (its name) ended {how}, ")


def test_logs_of_the_elastic_launcher_are_in_our_folder(
    started: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    started("")
    assert list(place.iterdir()) == []


def test_a_rank_that_cannot_begin_is_named(tmp_path: Path) -> None:
    (tmp_path / "stub.py").write_text("import sys; sys.exit(7)")
    with pytest.raises(RankError, match="rank 0 ended with status 7, before it was heard"):
        Launch([str(tmp_path / "stub.py")], 1, tmp_path).run(lambda event: None)


def test_a_stopped_rank_is_ended(started: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears nothing but SIGKILL, which torch sends half a minute later."""
    monkeypatch.setattr(launch, "GRACE", 1)
    fault = fault_of(started, "fail('R104', 0.3) if rank == 0 else os.kill(os.getpid(), signal.SIGSTOP)")
    assert (fault.code, fault.message) == ("R104", "R104 of rank 0; a copy is kept")
    for text in word.left(tmp_path / "word", "process", 0).values():
        with pytest.raises(ProcessLookupError):
            os.kill(int(text), 0)


def test_ranks_are_started_again(started: Callable[..., Any]) -> None:
    events = started("""
if rank == 0:
    word.Events(word.folder() / word.EVENTS).write("start", attempt=attempt)
elif attempt < 2:
    sys.exit(1)
""", restarts=2)  # fmt: skip
    assert events[-1]["attempt"] == 2


@pytest.mark.parametrize("what", ["raises", "ctrl-c", "sigterm"])
def test_ranks_end_with_who_follows_them(started: Callable[..., Any], tmp_path: Path, what: str) -> None:
    def on_event(event: dict[str, Any]) -> None:
        if what == "raises":
            raise ZeroDivisionError
        os.kill(os.getpid(), signal.SIGINT if what == "ctrl-c" else signal.SIGTERM)

    before = [signal.getsignal(s) for s in launch.HANDLED]
    with pytest.raises(ZeroDivisionError if what == "raises" else KeyboardInterrupt) as caught:
        started("""
if rank == 0:
    word.Events(word.folder() / word.EVENTS).write("start")
time.sleep(60)
""", on_event=on_event)  # fmt: skip
    assert getattr(caught.value, "status", None) == (143 if what == "sigterm" else None)
    assert [signal.getsignal(s) for s in launch.HANDLED] == before
    assert word.FOLDER not in os.environ
    for text in word.left(tmp_path / "word", "process", 0).values():
        with pytest.raises(ProcessLookupError):
            os.kill(int(text), 0)


# where ranks are


class Shelf:
    """A store in this process."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value

    def get(self, key: str) -> bytes:
        return self.kept[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(k in self.kept for k in keys)

    def clone(self) -> Shelf:
        return self


def test_a_heartbeat_says_where_its_rank_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.01)
    shelf = Shelf()
    heart = Heartbeat(shelf, 1)
    heart.start()
    heart.at(16, "F 4", 1)
    for _ in range(1000):
        if '"F 4"' in shelf.kept.get("place/1", ""):
            break
        time.sleep(0.01)
    heart.stop()
    assert heart.seen(1) == "rank 1 has been at task 'F 4' of microbatch 2, step 17 for 0 s"
    assert heart.seen(0) == "rank 0 never reported"
    shelf.set("place/0", str(Beat((0, "", 0), time.time() - 70, time.time() - 60)))
    assert heart.seen(0) == "rank 0 was last heard 60 s ago, before its first task"


def test_who_waits_for_all_says_where_they_are() -> None:
    error = RankError(Fault("R104", "rank 0 waited 5 s for all ranks to come together"))
    seen = {1: "rank 1 has been at task 'F 4'", 2: "rank 2 was last heard 6 s ago"}
    (fault,) = located(error, seen.__getitem__, 0, 3).faults
    assert fault.message.endswith("to come together; rank 2 was last heard 6 s ago")
    other = RankError(Fault("R105", "rank 0 lost rank 1"))
    assert located(other, seen.__getitem__, 0, 3) is other


# the handshake


class Talk(Alone):
    """Ranks whose facts are known beforehand."""

    def __init__(self, *others: dict[str, str]) -> None:
        self.others = others

    def gather(self, text: str) -> list[str]:
        return [text, *(json.dumps(o) for o in self.others)]


def test_ranks_that_agree_go_on() -> None:
    agree(Talk({"plan": "a"}, {"plan": "a"}), {"plan": "a"})


def test_the_handshake_says_who_differs_in_what() -> None:
    first = {"torch": "2.13", "plan": "a", "setting 'lr'": "0.1"}
    with pytest.raises(RankError) as caught:
        agree(Talk({**first, "plan": "b"}, {**first, "setting 'lr'": "0.2"}, {**first, "plan": "b"}), first)
    assert caught.value.faults[0].code == "R111"
    assert caught.value.faults[0].message == (
        "the ranks would not train the same: ranks 1, 3 have plan b, rank 0 has a; "
        "rank 2 has setting 'lr' 0.2, rank 0 has 0.1"
    )


@pytest.mark.parametrize("changed", [slice(5, 6), slice(-1, None)])
def test_the_handshake_knows_the_data(changed: slice) -> None:
    digits = load("digits")
    said = data_of(digits)
    assert said == data_of(load("digits")) and said.startswith("digits (")
    images, labels = digits.x_train.copy(), digits.y_train.copy()
    images[-1] = 0
    labels[changed] += 1
    assert data_of(replace(digits, x_train=images)) != said != data_of(replace(digits, y_train=labels))


# the commands


def train(*flags: str, epochs: int = 2) -> Result:
    """`reclra-compile train model.py`; anything but a deliberate exit is a failure."""
    result = CliRunner().invoke(main, ["train", "model.py", "--epochs", str(epochs), "--batch-size", "16", *flags])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the model."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    return tmp_path


#: what a model may leave for the end of its process
LEFT = """
import atexit

class Kept:
    def __del__(self):
        open("taken apart", "a").close()

if "RANK" in os.environ:
    kept = Kept()
    atexit.register(lambda: open(f"ended {os.environ['RANK']}", "a").close())
"""


def test_processes_report_what_one_does(folder: Path) -> None:
    """The same table, log and JSON, with a comparison whose plan is launched as well.

    Ranks call what is registered for their end, but leave the interpreter as it is: torch's threads still use it.
    """
    Path("model.py").write_text(MODEL + LEFT)
    flags = ("--devices", "2", "--microbatches", "2", "--compare", "backprop", "--json")
    one = train(*flags, "--one-process")
    done = train(*flags, "--log", "log.jsonl", "--log-every", "3", "--run-dir", "runs")
    assert done.exit_code == 0, done.output
    first, second = (json.loads(r.stdout) for r in (one, done))
    for a, b in zip(first["results"], second["results"], strict=True):
        assert (a["wiring"], a["settings"]) == (b["wiring"], b["settings"])
        for x, y in zip(a["history"][0], b["history"][0], strict=True):
            assert list(x["regions"]) == list(y["regions"])
            rest = [{**e.pop("regions"), **e} for e in (x, y)]
            known = [{k: v for k, v in e.items() if v is not None and k != "seconds"} for e in rest]
            assert known[0] == pytest.approx(known[1], rel=1e-9)
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert lines[0]["kind"] == "header" and {line["kind"] for line in lines[1:]} == {"step", "epoch"}
    steps = [(e["wiring"], e["step"]) for e in lines[1:] if e["kind"] == "step"]
    assert steps == [(w, k) for w in ("depth2", "backprop") for k in (3, 6)]
    assert all(e["loss"] > 0.1 and e["discrepancy"] > 0 for e in lines[1:])
    lines = [line for line in lines if line["kind"] == "epoch"]
    assert [(e["wiring"], e["epoch"]) for e in lines] == [(w, k) for w in ("depth2", "backprop") for k in (1, 2)]
    assert {p.name for p in Path("runs").iterdir()} == {"depth2", "backprop"}
    assert Path("ended 0").exists() and Path("ended 1").exists() and not Path("taken apart").exists()


def test_too_few_gpus_are_said_before_anything_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    done = train("--devices", "h100:4")
    assert done.exit_code == 2
    assert "error[R103]: 4 processes need as many GPUs" in done.stderr and "--one-process" in done.stderr


def test_a_batch_too_small_for_replicas_is_said_before_anything_starts(folder: Path) -> None:
    done = train("--replicas", "3", "--batch-size", "31")  # of 64 samples: the last batch has 2
    assert (done.exit_code, done.stderr) == (
        2, "error[T030]: 64 samples in batches of 31 leave a batch of 2 for 3 replicas\n"
        "  fix: use --batch-size 30, or fewer replicas\n",
    )  # fmt: skip


def test_a_size_of_batches_is_found_where_there_is_one() -> None:
    with pytest.raises(TrainingError, match="leave a batch of 1 for 8") as caught:
        check_batches(17, 2, 8)
    assert caught.value.faults[0].fix.startswith("use --batch-size 9,")
    with pytest.raises(TrainingError) as caught:
        check_batches(101, 4, 60)
    assert caught.value.faults[0].fix.startswith("use --batch-size 101,")


def test_a_run_folder_that_cannot_be_made_is_said_before_anything_starts(folder: Path) -> None:
    Path("file").touch()
    done = train("--devices", "2", "--run-dir", "file/runs")
    assert done.exit_code == 2 and "error[F002]" in done.stderr and "rank" not in done.stderr


def test_ranks_started_again_resume_what_their_launch_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = (Member("depth2", "depth2", None, 0, tmp_path),)
    (tmp_path / "checkpoint.pt").touch()

    def resumes(again: bool, resume: bool = False) -> bool:
        return _resumes({"resume": resume, "again": again}, members)

    monkeypatch.setenv(launches.NAME, "first")
    launches.mark(tmp_path)
    assert resumes(again=True) and not resumes(again=False) and resumes(again=False, resume=True)
    monkeypatch.setenv(launches.NAME, "second")
    assert not resumes(again=True)
    launches.forget(tmp_path)
    monkeypatch.setenv(launches.NAME, "first")
    assert not resumes(again=True)


@pytest.mark.parametrize("flags", [("--replicas", "2"), ("--init", "regions")])
def test_what_needs_processes_has_them(folder: Path, flags: tuple[str, ...]) -> None:
    done = train(*flags, "--one-process")
    assert (done.exit_code, "leave --one-process out" in done.stderr) == (2, True)


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads(10**6) == 1 <= threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads(2) == 3


def started_by_hand(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python …` with what a launcher sets."""
    return subprocess.run([sys.executable, *words], env={**os.environ, **environment}, text=True, capture_output=True,
                          timeout=TIMEOUT)  # fmt: skip


@pytest.mark.slow
def test_torchrun_runs_a_plan(folder: Path) -> None:
    CliRunner().invoke(main, ["model.py", "--devices", "2", "--out", "two.plan"], catch_exceptions=False)
    done = started_by_hand("-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                           "--rdzv-endpoint", "localhost:0", "-m", "reclra_compile.run", "two.plan", "model.py",
                           "--epochs", "1", "--run-dir", "runs")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1/1") == 1 and done.stdout.count("results") == 1
    assert Path("runs/depth2/seed0/log.jsonl").exists()


@pytest.mark.parametrize(("changed", "said"), [
    ({"RANK": "x"}, "RANK=x is not a number"),
    ({"RANK": "-1"}, "RANK=-1 is not a number"),
    ({"RANK": "5"}, "RANK=5 is no rank of WORLD_SIZE=2: they count from 0 to 1"),
    ({"LOCAL_RANK": "x"}, "LOCAL_RANK=x is not a number"),
    ({"MASTER_PORT": "abc"}, "MASTER_PORT=abc is not a number up to 65535"),
    ({"MASTER_PORT": "99999"}, "MASTER_PORT=99999 is not a number up to 65535"),
    ({"WORLD_SIZE": ""}, "this process does not know which rank it is: WORLD_SIZE is not set"),
])  # fmt: skip
def test_variables_of_a_launcher_are_checked(changed: dict[str, str], said: str) -> None:
    sound = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    check_variables("fix", sound)
    with pytest.raises(RankError) as caught:
        check_variables("fix", {**sound, **changed})
    assert (caught.value.faults[0].code, caught.value.faults[0].message) == ("R101", said)


def test_a_rank_that_is_no_number_is_said(folder: Path) -> None:
    CliRunner().invoke(main, ["model.py", "--devices", "2", "--out", "two.plan"], catch_exceptions=False)
    done = started_by_hand("-m", "reclra_compile.run", "two.plan", "model.py", RANK="x", WORLD_SIZE="2",
                           MASTER_ADDR="localhost", MASTER_PORT="29500")  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error[R101]: RANK=x is not a number\n")


def test_without_a_launcher_the_line_to_use_is_said(folder: Path) -> None:
    CliRunner().invoke(main, ["model.py", "--devices", "2", "--out", "two.plan"], catch_exceptions=False)
    done = started_by_hand("-m", "reclra_compile.run", "two.plan", "model.py")
    assert done.returncode == 2
    assert done.stderr == (
        "error[R101]: this process does not know which rank it is: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not "
        "set\n  fix: start it with `torchrun --nproc-per-node 2 -m reclra_compile.run two.plan model.py …`\n"
    )
