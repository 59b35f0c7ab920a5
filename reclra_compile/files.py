"""Write files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from reclra_compile.errors import Fault, Location, UserError

FIX = "name a file in a folder that exists and that you may write to"
FULL = "make room; what was there before is as it was"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object], code: str = "F001") -> None:
    """Let `write` fill a temporary file beside `path`, then move it there; raises UserError (`code`).

    Links are followed; devices and pipes (`/dev/stdout`) are written directly.
    """
    try:
        if is_stream(path):
            with open(path, "wb") as stream:
                write(stream)
        else:
            _replace(Path(os.path.realpath(path)), write)
    except OSError as error:
        where, fix = Location(os.fspath(path)), FULL if error.errno in NO_ROOM else FIX
        raise UserError(Fault(code, f"cannot write this file: {error.strerror or error}", where, fix)) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically; raises UserError (F001)."""
    write_atomically(path, lambda file: file.write(text.encode()))


def make_folder(path: Path) -> None:
    """Make a folder and those around it; raises UserError (F002)."""
    try:
        new = [place for place in (path, *path.parents) if not place.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for place in new:
            sync_folder(place.parent)
    except OSError as error:
        raise UserError(
            Fault("F002", f"cannot make this folder: {error.strerror or error}", Location(str(path)),
                  "name a folder in a place that you may write to")
        ) from error


def sync_folder(path: Path) -> None:
    """Let the names in a folder reach the disk, where the system can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.fsync(handle)
    os.close(handle)


def is_temporary(file: str, name: str) -> bool:
    """True for a file that was being written, to become `name`, when its process ended."""
    return re.fullmatch(re.escape(_prefix(name)) + "[a-z0-9_]{8}", file) is not None


def _prefix(name: str) -> str:
    return f".{name[:40]}."


def is_stream(path: str | os.PathLike[str]) -> bool:
    if os.fspath(path).startswith(("/dev/std", "/dev/fd/")):
        return True  # the shell may have redirected it to a file that others write to as well
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _replace(target: Path, write: Callable[[IO[bytes]], object]) -> None:
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target.name))
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; this is what open() would give
        os.replace(temporary, target)
        sync_folder(target.parent)  # or the new name may be lost with the power, after what it replaces is removed
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
