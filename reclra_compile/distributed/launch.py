"""Start ranks on this host through torch's elastic launcher, follow them, and say once what went wrong."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reclra_compile.distributed import word
from reclra_compile.distributed.heartbeat import Beat, where
from reclra_compile.distributed.report import with_kept
from reclra_compile.errors import Fault, RankError

OnEvent = Callable[[dict[str, Any]], None]

#: seconds between two looks at the ranks, and at what they write
INTERVAL, LOOK = 0.1, 0.05
#: what is shown of the output of a rank that ends without a word, in characters
MOST = 4000
#: seconds that a rank has to end by itself after another one has failed, before it is killed
GRACE = 5
#: what the elastic launcher ends ranks with, and what Ctrl-C and terminals that close send
ENDING = (signal.SIGTERM, signal.SIGINT)
HANDLED = tuple(getattr(signal, f"SIG{n}") for n in ("TERM", "INT", "HUP", "QUIT") if hasattr(signal, f"SIG{n}"))


class Ended(KeyboardInterrupt):
    """A signal other than that of Ctrl-C ended the launch; everything is cleaned up as for Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


@dataclass(frozen=True)
class Launch:
    """`command`: arguments of this Python that each of `ranks` processes runs; `folder`: where they leave word.

    `name` gives what a rank is called; `kept` says what is left of the run where a rank is killed; `environment` is
    added to that of this process.
    """

    command: Sequence[str]
    ranks: int
    folder: Path
    name: Callable[[int], str] = "rank {}".format
    kept: Callable[[], str] = str
    restarts: int = 0
    environment: Mapping[str, str] | None = None

    def run(self, on_event: OnEvent) -> None:
        """Start the ranks and wait for them; `on_event` gets each event of rank 0, in a thread of its own.

        Raises RankError with the first cause where they fail, KeyboardInterrupt at Ctrl-C, Ended at other signals, and
        whatever `on_event` raised; no rank is left then.
        """
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.elastic.rendezvous import RendezvousError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=self.ranks, run_id=uuid.uuid4().hex, max_restarts=self.restarts,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost", monitor_interval=INTERVAL,
            shutdown_timeout=GRACE, logs_specs=DefaultLogsSpecs(str(self.folder / "elastic")),
        )  # fmt: skip
        follower = Follower(self.folder, on_event)
        environment = {**(self.environment or {}), word.FOLDER: str(self.folder)}
        try:
            with _signals(), _quiet(), _environment(environment), follower:
                elastic_launch(config, sys.executable)(*self.command)
        except SignalException as stop:
            if follower.error is not None:
                raise follower.error from None
            if stop.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise Ended(stop.sigval) from None
        except ChildFailedError as error:
            statuses = {rank: failure.exitcode for rank, failure in error.failures.items()}
            raise self._cause(statuses, follower.killed) from None
        except RendezvousError as error:
            raise RankError(
                Fault("R107", f"torch's launcher cannot meet its processes on this host: {error}",
                      fix="let this host connect to itself, at localhost, or use --one-process")
            ) from error  # fmt: skip
        if follower.error is not None:
            raise follower.error

    def _cause(self, statuses: dict[int, int], killed: set[int]) -> RankError:
        """The first cause of a failure: a fault that a rank left, then a signal, then what others saw of it."""
        attempt = max([0, *self._attempts()])
        told = word.said(self.folder, attempt)
        if told and not told[0].secondary:
            return self._told(told[0])
        signals = {r: s for r, s in statuses.items() if s < 0 and r not in killed and -s not in ENDING}
        if signals:
            rank = min(signals)
            if signals[rank] != -signal.SIGKILL:  # such as a fault in native code, which says more
                self._show_log(rank, attempt)
            return RankError(self._ended(rank, f"was ended by {signal.Signals(-signals[rank]).name}", attempt))
        mute = self._mute(statuses, killed, told)
        if told and mute is None:
            return self._told(told[0])
        rank = next(iter(statuses)) if mute is None else mute
        status = statuses[rank]
        how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        self._show_log(rank, attempt)
        return RankError(self._ended(rank, f"ended {how}", attempt))

    def _mute(self, statuses: dict[int, int], killed: set[int], told: Sequence[word.Said]) -> int | None:
        """The first rank that ended by itself and left no fault, if any.

        The elastic launcher lists ranks that it ended, by SIGTERM, after those that ended before.
        """
        others = {r: s for r, s in statuses.items() if r not in killed and r not in {t.rank for t in told}}
        by_status = [r for r, s in others.items() if s > 0]
        if by_status:
            return by_status[0]
        lost = not told or any(f.code == "R105" for f in told[0].faults)  # who waits too long has lost nobody
        return next(iter(others), None) if lost else None

    def _show_log(self, rank: int, attempt: int) -> None:
        print(word.left(self.folder, "log", attempt).get(rank, "")[-MOST:], file=sys.stderr, end="")

    def _told(self, said: word.Said) -> RankError:
        if said.traceback:
            print(said.traceback, file=sys.stderr, end="")
        return RankError(with_kept(RankError(said.faults), self.kept()).faults)

    def _ended(self, rank: int, how: str, attempt: int) -> Fault:
        heard = word.left(self.folder, "place", attempt).get(rank)
        beat = Beat.read(heard) if heard else None
        at = f", last heard {where(beat.place)}" if beat else ", before it was heard"
        kept = self.kept()
        fix = "see what ended it, such as the system's log where memory was short"
        if how.startswith("ended with"):
            fix = "see what ends the process, in your own code or in what it calls; what it printed last is shown above"
        return Fault("R110", f"{self.name(rank)} {how}{at}{f'; {kept}' if kept else ''}", fix=fix)

    def _attempts(self) -> list[int]:
        return [int(f.name.split(".")[1]) for f in self.folder.glob("process.*.*")]


class Follower:
    """Reads what ranks leave while they run; as a context manager it owns the thread that does so.

    A rank that does not end within `GRACE` after another one has left a fault is killed: one that is stopped, or
    caught in a call that never returns, does not hear the launcher.
    """

    def __init__(self, folder: Path, on_event: OnEvent) -> None:
        self.killed: set[int] = set()
        self.error: BaseException | None = None
        self._folder, self._on_event = folder, on_event
        self._read, self._rest = 0, b""
        self._failed: dict[int, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            ended = self._done.wait(LOOK)
            try:
                self._events()
            except BaseException as error:  # of the view: the ranks have nobody to work for
                self.error = error
                if not ended:
                    os.kill(os.getpid(), signal.SIGTERM)
                return
            if ended:
                return
            self._end_the_rest()

    def _events(self) -> None:
        file = self._folder / word.EVENTS
        if not file.exists():
            return
        with file.open("rb") as stream:
            stream.seek(self._read)
            new = stream.read()
        self._read += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            self._on_event(json.loads(line))

    def _end_the_rest(self) -> None:
        for file in self._folder.glob("fault.*.*"):
            if file.suffix == ".new":
                continue
            attempt = int(file.name.split(".")[1])
            since = self._failed.setdefault(attempt, time.monotonic())
            if time.monotonic() - since < GRACE:
                continue
            for rank, process in word.left(self._folder, "process", attempt).items():
                if rank not in self.killed and _runs(int(process)):
                    self.killed.add(rank)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(process), signal.SIGKILL)


def _runs(process: int) -> bool:
    """Whether a child of this process has not ended; it is left for the elastic launcher to wait for."""
    try:
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        os.kill(process, 0)
    except OSError:
        return False
    return True


def _end(number: int, _: object) -> None:
    raise Ended(number)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """The elastic launcher sets handlers of its own, in the main thread, and leaves them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.getsignal(s) for s in HANDLED}
    try:
        for number in HANDLED:
            if number != signal.SIGINT and before[number] is signal.SIG_DFL:
                signal.signal(number, _end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The elastic launcher logs each process that it ends; what people need to know of it is said once, here."""
    names = [n for n in logging.root.manager.loggerDict if n.startswith(("torch.distributed", "torch.elastic"))]
    before = [(logging.getLogger(n), logging.getLogger(n).level) for n in names]
    try:
        for logger, _ in before:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Ranks inherit the environment of this process."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
