"""Runs cases in worker processes, a few at a time, and keeps each result in a file of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from reclra_compile.files import make_folder, write_text
from reclra_compile.reproduce.cases import Case

Event = dict[str, Any]


@dataclass(frozen=True)
class Store:
    """A folder of results, one file per finished run, and checkpoints of the others."""

    folder: Path

    def result_file(self, case: Case) -> Path:
        """Where the result of a case is kept."""
        return self.folder / "results" / f"{case.name}-{case.digest}.json"

    def checkpoint_folder(self, case: Case) -> Path:
        """Where a case that is not finished keeps its last epoch."""
        return self.folder / "checkpoints" / f"{case.name}-{case.digest}"

    def read(self, case: Case) -> Event | None:
        """The result of a case, or None where it is not finished; a damaged file counts as not finished."""
        try:
            record = json.loads(self.result_file(case).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("digest") == case.digest else None

    def keep(self, case: Case, record: Event) -> None:
        """Keep a finished run's result; its checkpoint is no longer needed. Raises UserError (F001, F002)."""
        file = self.result_file(case)
        make_folder(file.parent)
        write_text(file, json.dumps(record, indent=1) + "\n")
        shutil.rmtree(self.checkpoint_folder(case), ignore_errors=True)

    @property
    def used(self) -> bool:
        """True where an earlier run has left results or checkpoints."""
        return any(self.folder.glob("results/*.json")) or any(self.folder.glob("checkpoints/*/checkpoint.pt"))


class Worker:
    """A process that runs one case at a time; its events arrive in a queue shared by all workers."""

    def __init__(self, number: int, events: queue.Queue[tuple[int, Event]], threads: int) -> None:
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "RECLRA_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        self.number, self.events = number, events
        self.case: Case | None = None
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "reclra_compile.reproduce.worker"], env=env, text=True, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
        )  # fmt: skip
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def ask(self, case: Case, folder: Path | None, data_dir: str | None, device: str) -> None:
        """Let the process run a case."""
        self.case = case
        request = {"case": dataclasses.asdict(case), "folder": str(folder) if folder else None,
                   "data_dir": data_dir, "device": device}  # fmt: skip
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a process that has died is found by its end of output
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put((self.number, json.loads(line)))
        self.events.put((self.number, {"ended": self.process.wait()}))

    def last_words(self) -> str:
        """The last line that the process wrote to its standard error."""
        self.errors.seek(0)
        lines = [line for line in self.errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    def end(self) -> None:
        """End the process, whatever it does; checkpoints are whole at any time."""
        self.process.kill()
        self.process.wait()
        self.listener.join()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def run_all(
    todo: Sequence[Case], store: Store | None, *, jobs: int, data_dir: str | None, device: str = "cpu", threads: int = 1
) -> Iterator[tuple[Case, Event]]:
    """Run cases, `jobs` at a time; yields what happens: {"epoch", …}, and of each case {"result"} or {"faults"}.

    Results are kept in `store` before they are yielded. Leaving the iterator ends all processes.
    """
    waiting, events = deque(todo), queue.Queue[tuple[int, Event]]()
    workers: dict[int, Worker] = {}
    number = 0
    try:
        while waiting or any(w.case for w in workers.values()):
            while waiting and sum(w.case is not None for w in workers.values()) < jobs:
                idle = next((w for w in workers.values() if w.case is None), None)
                if idle is None:
                    number += 1
                    idle = workers[number] = Worker(number, events, threads)
                case = waiting.popleft()
                idle.ask(case, store.checkpoint_folder(case) if store else None, data_dir, device)
            who, event = events.get()
            worker = workers[who]
            case_of, finished = worker.case, "epoch" not in event
            if "ended" in event:
                del workers[who]
                words = worker.last_words()
                worker.end()
                said = f": {words}" if words else ""
                message = f"its process ended with status {event['ended']}{said}"
                event = {"faults": [{"code": "R005", "message": message, "fix": ""}]}
            if finished:
                worker.case = None
            if case_of is None:
                continue
            if "result" in event and store is not None:
                store.keep(case_of, event["result"])
            yield case_of, event
    finally:
        for w in workers.values():
            w.end()
