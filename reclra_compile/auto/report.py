"""What was chosen, why, and what else there was."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relay:
    """A region that others hear: its neurons, whom it hears, who hears it, and why it was chosen."""

    name: str
    neurons: int
    hears: str
    heard_by: tuple[str, ...]
    wave: int
    reason: str


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way of wiring the model: what the error phase is modelled to take, and what its synapses take.

    `step_us` is the simulated time of a whole step, `error` the test error of a finished run (a share), None where
    neither is known. `error_us` is None for groups whose errors inside are exact: only `step_us` tells their time.
    """

    label: str
    waves: int
    error_us: float | None
    synapse_bytes: int
    chosen: bool = False
    step_us: float | None = None
    error: float | None = None
    runs: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The design of a wiring. `unit` is "µs", or "FLOPs" where the devices have no rates.

    `waves` are the regions by wave, the one below the output first; `exact` is true where no other error graph of the
    kind that was asked for is better in the model; `evaluations` counts the error graphs that were looked at.
    """

    devices: int
    unit: str
    waves: tuple[tuple[str, ...], ...]
    relays: tuple[Relay, ...]
    alternatives: tuple[Alternative, ...]
    error_us: float
    synapse_bytes: int
    exact: bool
    evaluations: int
    reason: str
    notes: tuple[str, ...] = ()


def amount(value: float, unit: str) -> str:
    """A modelled time in words: 123 µs, 4.5 ms, 1.2 MFLOPs."""
    if unit != "µs":
        for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if value >= size:
                return f"{value / size:.3g} {prefix}{unit}"
        return f"{value:.3g} {unit}"
    for name, size in (("s", 1e6), ("ms", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} µs"


def byte_text(size: int) -> str:
    """A number of bytes in words: 1.5 MiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"


def listed(names: tuple[str, ...], most: int = 6) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
