"""One run in a folder at a time: two at once would remove and tear each other's checkpoints."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from reclra_compile.errors import Fault, Location, ReclraError, TrainingError
from reclra_compile.files import make_folder
from reclra_compile.runtime.peers import Peers
from reclra_compile.train.agree import agree

LOCK = ".lock"


@contextlib.contextmanager
def only_run(folder: Path | None, peers: Peers) -> Iterator[None]:
    """Inside, this is the only run that writes to `folder`, which is made; its ranks call it together.

    Raises on all ranks TrainingError (T031) where another run has it, and UserError (F002) where it cannot be made.
    """
    if folder is None:
        yield
        return
    held, fault = None, None
    if peers.rank == 0:
        try:
            make_folder(folder)
            held = _take(folder)
        except ReclraError as error:
            fault = error
    try:
        agree(peers, fault)
        yield
    finally:
        if held is not None:
            _release(held, folder / LOCK)


def _take(folder: Path) -> int | None:
    """A handle that holds the folder's lock until it is released or the process ends; None without locks here."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        try:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None  # where nothing can be written, the first file of the run says so
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(folder / LOCK)):
                return handle
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                return None  # a file system without locks
            raise TrainingError(
                Fault("T031", "another run is writing here", Location(str(folder)),
                      "wait until it is done, or name another --run-dir")
            ) from error
        os.close(handle)  # of a file that the run before has just removed


def _release(handle: int, file: Path) -> None:
    import fcntl

    with contextlib.suppress(OSError):
        file.unlink()  # first: whoever has opened it by now sees that it is gone, and makes a new one
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)  # also for processes that were forked meanwhile and have the handle too
    os.close(handle)
