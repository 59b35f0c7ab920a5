"""Collects the faults of a wiring, each with its place; many of one kind at one place become one."""

from __future__ import annotations

from dataclasses import replace

from reclra_compile.errors import Fault
from reclra_compile.spec.load import Loaded


class Faults:
    """The faults found so far; a wiring of a deep model repeats a mistake at each layer, a report does not."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._found: dict[tuple[str | int, ...], list[Fault]] = {}

    def add(self, code: str, message: str, *path: str | int, fix: str = "") -> None:
        """Report a problem with the value at `path` of the wiring."""
        fault = Fault(code, message, self.loaded.where(*path), fix)
        self._found.setdefault((code, *path), []).append(fault)

    def sorted(self) -> list[Fault]:
        """One fault per kind and place, in the order of the file."""
        faults = [
            replace(first, message=f"{first.message} (and {len(more)} more like this)") if more else first
            for first, *more in self._found.values()
        ]
        return sorted(faults, key=lambda f: (f.where.line, f.where.column) if f.where else (0, 0))
