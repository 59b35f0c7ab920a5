"""Where each rank is, left in the store about once a second, so that who waits in vain can say for whom and why.

A rank marks its place by one attribute write; a thread of its own carries it to the store. The thread goes on while
the rank computes or waits, and stops with the process: how long ago it was last heard tells the two apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from reclra_compile.distributed import word

#: seconds between two words to the launcher on this host, two beats in the store, and until a rank counts as silent
WORD, BEAT, SILENT = 0.2, 1.0, 3.0
#: (step, task, microbatch), counted from 0; no task before the first one
Place = tuple[int, str, int]


class Store(Protocol):
    """What is used of torch's stores."""

    def set(self, key: str, value: str) -> Any:
        """Keep a value."""

    def get(self, key: str) -> bytes:
        """The value, waiting until there is one."""

    def check(self, keys: list[str]) -> bool:
        """Whether all of these are there."""

    def clone(self) -> Any:
        """Another client of the same store."""


@dataclass(frozen=True)
class Beat:
    """What a rank last said: its place, when it came there, and when that was said (seconds of the wall clock)."""

    place: Place
    since: float
    at: float

    @classmethod
    def read(cls, text: str | bytes) -> Beat:
        """The beat that `str()` of one stands for."""
        step, task, microbatch, since, at = json.loads(text)
        return cls((step, task, microbatch), since, at)

    def __str__(self) -> str:
        return json.dumps([*self.place, self.since, self.at])

    def words(self, now: float) -> str:
        """The place, and for how long it has been so, or how long ago the rank was last heard."""
        silent, stayed = now - self.at, max(now - self.since, 0.0)
        if silent > SILENT:
            return f"was last heard {silent:.0f} s ago, {where(self.place)}"
        return f"has been {where(self.place)} for {stayed:.0f} s"


def where(place: Place) -> str:
    """The place in words; steps and microbatches are counted from 1 for people."""
    step, task, microbatch = place
    return f"at task '{task}' of microbatch {microbatch + 1}, step {step + 1}" if task else "before its first task"


def _orphan(parent: int) -> bool:
    """Whether the launcher of this process is gone; other parents (a shell, say) may end before it."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != parent


class Heartbeat:
    """Tells the others where `rank` is; `store` is the mesh's.

    A process whose launcher is gone is ended: nobody would end it otherwise, and the ranks that it waits for are gone.
    """

    def __init__(self, store: Store, rank: int) -> None:
        self.rank, self.place = rank, (0, "", 0)
        self._store, self._own = store, store.clone()  # a client that waits for a key blocks whoever shares it
        self._parent = os.getppid()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Beat until `stop`."""
        self._thread.start()

    def at(self, step: int, task: str, microbatch: int) -> None:
        """The rank is about to run or wait for this; step and microbatch count from 0."""
        self.place = (step, task, microbatch)

    def seen(self, rank: int) -> str:
        """Where another rank is, or was when last heard: "rank 1 has been at task … for 5 s"."""
        try:
            if not self._store.check([_key(rank)]):
                return f"rank {rank} never reported"
            return f"rank {rank} {Beat.read(self._store.get(_key(rank))).words(time.time())}"
        except RuntimeError:  # the store went with the rank or the launcher that kept it
            return f"rank {rank} cannot be asked where it is"

    def tell(self, what: str, text: str) -> None:
        """Leave something for the others to see, in place of what was there; lost where there is no store."""
        with contextlib.suppress(RuntimeError):
            self._store.set(f"{what}/{self.rank}", text)

    def told(self, what: str, rank: int) -> str | None:
        """What another rank has left, without waiting for it."""
        with contextlib.suppress(RuntimeError):
            if self._store.check([f"{what}/{rank}"]):
                return self._store.get(f"{what}/{rank}").decode()
        return None

    def stop(self) -> None:
        """End the beats; call it before the process group is closed."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(5 * BEAT)

    def _run(self) -> None:
        place, since, told = self.place, time.time(), 0.0
        while True:
            now = time.time()
            if self.place != place:
                place, since = self.place, now
            beat = str(Beat(place, since, now))
            with contextlib.suppress(OSError):  # a full disk is for whoever saves to say
                word.leave("place", self.rank, beat)
            if now - told >= BEAT - WORD / 2:
                told = now
                with contextlib.suppress(RuntimeError):  # without a store the next message to another rank says so
                    self._own.set(_key(self.rank), beat)
            if _orphan(self._parent):
                os._exit(2)
            if self._ended.wait(WORD):
                return


def _key(rank: int) -> str:
    return f"place/{rank}"

