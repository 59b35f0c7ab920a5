"""Ranks that a launcher starts again meet anew, in a store that still has what the ranks before them left.

A launcher keeps one store for all its attempts. What transports find there of ranks that are gone, such as their
addresses, they would take for the present ones', so each attempt gets a part of the store of its own. No number of the
attempt is known to all: each host counts restarts for itself. So rank 0 names it, and every other rank waits for a
rank 0 that has seen it.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

_PAUSE = 0.01
#: how an error begins that says which ranks have not come
MISSING = "no word of rank "


def meet(store: Any, rank: int, world: int, timeout: float) -> str:
    """A name for this attempt, the same on all its ranks and on no others; collective.

    `store` keeps texts by name, as torch's do. Raises RuntimeError where the ranks are not all there in `timeout`
    seconds.
    """
    own, end = uuid.uuid4().hex, time.monotonic() + timeout
    store.set(f"here/{rank}", own)
    while time.monotonic() < end:
        found = _as_first(store, own, world) if rank == 0 else _as_other(store, own, rank, world)
        if found:
            return found
        time.sleep(_PAUSE)
    missing = [str(r) for r in range(1, world) if rank == 0 and _read(store, f"with/{r}") != own]
    raise RuntimeError(f"{MISSING}{', '.join(missing) or '0'} in {timeout:g} s")


def _as_first(store: Any, own: str, world: int) -> str:
    """Say whom rank 0 has seen; its name once all others are with it."""
    seen = [_read(store, f"here/{r}") for r in range(world)]
    store.set("met", " ".join(seen))
    return own if all(_read(store, f"with/{r}") == own for r in range(1, world)) else ""


def _as_other(store: Any, own: str, rank: int, world: int) -> str:
    """Rank 0's name once it has seen this one: a rank 0 of an earlier attempt has not."""
    seen = _read(store, "met").split(" ")
    if len(seen) != world or seen[rank] != own:
        return ""
    store.set(f"with/{rank}", seen[0])
    return seen[0]


def _read(store: Any, name: str) -> str:
    """What the store has by a name; "-" for nothing."""
    return store.get(name).decode() if store.check([name]) else "-"
