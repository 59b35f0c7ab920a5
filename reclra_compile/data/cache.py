"""Arrays that are costly to make, kept in the user's cache folder: a lost or damaged cache is no loss."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reclra_compile.data.readers import Array, open_npz
from reclra_compile.errors import DataError


def cache_file(name: str) -> Path | None:
    """Where the arrays of a name are kept; None where there is no place for a cache."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = home if os.path.isabs(home) else os.path.join(os.path.expanduser("~"), ".cache")
    return Path(folder, "reclra-compile", f"{name}.npz") if os.path.isabs(folder) else None


def cached(file: Path | None, keys: Sequence[str]) -> dict[str, Array] | None:
    """The arrays that an earlier run has kept; None where there are none or the file is damaged."""
    if file is None or not os.path.isfile(file):
        return None
    try:
        with open_npz(file) as npz:
            return {key: npz.array(key) for key in keys}
    except DataError:
        return None


def keep(file: Path | None, arrays: dict[str, Array]) -> None:
    """Write a cache in one step, so that no reader meets half a file."""
    if file is None:
        return
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            whole = Path(scratch, file.name)
            np.savez(whole, **arrays)  # type: ignore[arg-type]
            os.replace(whole, file)
