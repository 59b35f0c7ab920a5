"""Which launch has written to a run's folder: ranks that it starts again go on from that, and from nothing older."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from reclra_compile.files import make_folder, write_text

#: a file in the run's folder with the name of the launch
FILE = "launch"
#: what torch's elastic launcher calls a launch; it is not always different from that of an earlier one
NAME = "TORCHELASTIC_RUN_ID"


def forget(folder: Path) -> None:
    """A launch begins: whatever is in the folder is of an earlier one."""
    with contextlib.suppress(OSError):  # who may not remove it may not write a checkpoint either
        (folder / FILE).unlink(missing_ok=True)


def mark(folder: Path) -> None:
    """This launch may write to the folder from now on; raises UserError (F001, F002)."""
    if NAME in os.environ:
        make_folder(folder)
        write_text(folder / FILE, os.environ[NAME])


def marked(folder: Path) -> bool:
    """Whether this launch has marked the folder, in this attempt or one before."""
    try:
        return (folder / FILE).read_text(encoding="utf-8") == os.environ.get(NAME)
    except (OSError, UnicodeDecodeError):
        return False
