"""How a rank that fails says so: one message of all ranks, and the first cause rather than what it led to.

Under the launcher of this package a rank leaves its faults in a file, and the launcher prints those of one rank. Under
another launcher the ranks agree in the store which of them prints: the first one that fails, as the others only fail
when it is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from reclra_compile.distributed import word
from reclra_compile.distributed.word import SECONDARY, Said
from reclra_compile.errors import Fault, RankError, ReclraError
from reclra_compile.ir import Plan

#: faults that name the ranks themselves, or are of all
NAMED = (*SECONDARY, "R101", "R102", "R111", "R114", "T020", "T021", "T022", "T024", "T025", "T030", "P002", "P010",
         "P011", "P012", "P013")  # fmt: skip
#: whose a fault is that all ranks raise
AGREED = re.compile(r"\brank (\d+): ")
#: faults that say nothing of what is kept
KEEPING = (*SECONDARY, "F001", "R112")
#: where the elastic launcher reads what a process ended of
ELASTIC = "TORCHELASTIC_ERROR_FILE"
#: how a fault ends that says for no rank in particular what it waited for
TOGETHER = "to come together"
#: ranks that a message names
MANY = 4
#: seconds in which a launcher ends all ranks when rank 0 fails as they do, before they know each other
PATIENCE = 2.0


def name_of(rank: int, plan: Plan) -> str:
    """A rank as people know it: "rank 3 (replica 1, stage 1, device 'cpu:1')"."""
    replica, stage = divmod(rank, len(plan.devices))
    copy = f"replica {replica}, " if replica else ""
    return f"rank {rank} ({copy}stage {stage}, device '{plan.devices[stage].name}')"


def report(
    error: ReclraError, rank: int, plan: Plan | None, store: Any, show: Callable[[ReclraError], None],
    traceback: str = "",
) -> None:  # fmt: skip
    """Say once for all ranks what went wrong on this one; `store` is None without a mesh."""
    faults = tuple(_named(f, rank, plan) for f in error.faults)
    if word.folder():
        word.leave("fault", rank, str(Said(rank, time.time(), faults, traceback)))
        return
    _tell_elastic("\n".join(str(f) for f in faults))
    if _prints(rank, store):
        if traceback:
            print(traceback, file=sys.stderr)
        show(ReclraError(faults))


def located(error: ReclraError, seen: Callable[[int], str], rank: int, count: int) -> ReclraError:
    """The error with where the others are, where a rank waited in vain for all of them."""
    if not any(f.code == "R104" and f.message.endswith(TOGETHER) for f in error.faults):
        return error
    others = [seen(r) for r in range(count) if r != rank]
    silent = [text for text in others if "last heard" in text or "never" in text] or others
    shown = "; ".join(silent[:MANY]) + (f"; and {len(silent) - MANY} more" if len(silent) > MANY else "")
    return ReclraError(replace(f, message=f"{f.message}; {shown}") for f in error.faults)


def with_kept(error: ReclraError, kept: str) -> ReclraError:
    """The error with what is left of the run, in a clause, where its own words do not say it."""
    if not kept:
        return error
    return ReclraError(replace(f, message=f"{f.message}; {kept}") if f.code in KEEPING else f for f in error.faults)


def unexpected(error: BaseException) -> RankError:
    """The fault (R112) of a rank that ended by an error which nothing foresaw."""
    first = (str(error).splitlines() or [""])[0]
    return RankError(
        Fault("R112", f"ended by {type(error).__name__}{f': {first}' if first else ''}",
              fix="the lines above say where; if they are not of your code, report them as a bug")
    )  # fmt: skip


def _named(fault: Fault, rank: int, plan: Plan | None) -> Fault:
    """The fault with the rank whose it is: this one, or that which `train.agree` has put into its message."""
    if fault.code in NAMED:
        return fault
    message, other = fault.message, AGREED.search(fault.message)
    if other:
        rank, message = int(other[1]), message.replace(other[0], "", 1)
    name = name_of(rank, plan) if plan else f"rank {rank}"
    return replace(fault, message=f"{name}: {message}")


def _tell_elastic(text: str) -> None:
    """Let torch's elastic launcher show the faults in its own report, where it is what started this process."""
    file = os.environ.get(ELASTIC)
    if not file:
        return
    told = {"message": text, "extraInfo": {"py_callstack": text, "timestamp": str(int(time.time()))}}
    with contextlib.suppress(OSError), open(file, "w", encoding="utf-8") as stream:
        json.dump({"message": told}, stream)


def _prints(rank: int, store: Any) -> bool:
    """Whether this rank is the one that prints."""
    if store is None:
        if rank:
            time.sleep(PATIENCE)
        return True
    try:
        return bool(store.compare_set("fault", "", str(rank)) == str(rank).encode())
    except RuntimeError:  # the store went with the rank that kept it, which has printed
        return False


def end(status: int) -> None:
    """End this process now; connections and threads that wait for other ranks would keep it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
