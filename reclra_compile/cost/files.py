"""Files of measured times: JSON, written in one step, and kept in the user's cache folder by model, wiring and machine.

The fitted device stands below `device:` as in any file of devices.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from reclra_compile.cost.fit import Line
from reclra_compile.cost.measured import KIND, Measured, TaskTime, work_of
from reclra_compile.errors import CostError, Fault, Location, UserError
from reclra_compile.files import write_text
from reclra_compile.ir import Device, Plan

CODES = {
    "C001": "a file of measured times cannot be read",
    "C002": "a file of measured times is of a version that this build does not read",
    "C003": "a file of measured times is damaged: a field is missing or malformed",
    "C004": "a file in the cache holds the times of another model or wiring",
    "C005": "nothing was measured of this model, wiring and machine",
}

FORMAT, VERSION = "reclra-compile times", 1
_AGAIN = "measure again with `reclra-compile profile MODEL`"
_TEXTS = ("fingerprint", "work", "model", "wiring", "host", "processor", "torch", "dtype")


def write_measured(measured: Measured, path: str | os.PathLike[str]) -> None:
    """Write the file in one step; raises UserError (F001)."""
    write_text(path, json.dumps(measured_dict(measured), indent=1, ensure_ascii=False) + "\n")


def measured_dict(measured: Measured) -> dict[str, Any]:
    """What the file holds, as plain data."""
    return {
        "format": FORMAT,
        "version": VERSION,
        **{name: getattr(measured, name) for name in _TEXTS},
        "threads": measured.threads,
        "batch": measured.batch,
        "samples": list(measured.samples),
        "step_us": {str(n): t for n, t in measured.step_us.items()},
        "device": asdict(measured.device),
        "tasks": {
            name: {"flops": t.flops, "bytes": t.bytes, "alone_us": _pair(t.alone), "apart_us": _pair(t.apart)}
            for name, t in measured.tasks.items()
        },
    }


def _pair(line: Line) -> list[float]:
    return [line.fixed_us, line.sample_us]


def is_measured(path: str | os.PathLike[str]) -> bool:
    """True for a file that says it holds measured times; a file of devices, and what cannot be read, is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, Mapping) and data.get("format") == FORMAT


def read_measured(path: str | os.PathLike[str]) -> Measured:
    """The times in a file; raises CostError (C001–C003) with every fault."""
    where = Location(os.fspath(path))
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CostError(Fault("C001", f"the file cannot be read: {error.strerror or error}", where, _AGAIN)) from None
    except ValueError as error:
        raise CostError(Fault("C001", f"the file is not JSON ({error})", where, _AGAIN)) from None
    except RecursionError:
        raise CostError(Fault("C001", "the file is nested too deeply", where, _AGAIN)) from None
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise CostError(Fault("C001", "the file does not hold measured times", where, _AGAIN))
    if data.get("version") != VERSION:
        found = data.get("version")
        message = f"the file is of version {found!r}; this build reads version {VERSION}"
        raise CostError(Fault("C002", message, where, _AGAIN))
    reader = _Reader(data, where)
    measured = reader.measured()
    if reader.faults:
        raise CostError(reader.faults)
    return measured


class _Reader:
    """Takes the fields of a file one by one and keeps what is wrong with them."""

    def __init__(self, data: Mapping[str, Any], where: Location) -> None:
        self.data, self.where, self.faults = data, where, list[Fault]()

    def measured(self) -> Measured:
        texts = {name: self._take(self.data, name, str, name) or "" for name in _TEXTS}
        threads, batch = (self._positive(name) for name in ("threads", "batch"))
        samples = self._take(self.data, "samples", list, "samples") or []
        steps = self._take(self.data, "step_us", dict, "step_us") or {}
        if not all(_whole(n) and n > 0 for n in samples):
            self._fault("samples", "whole numbers above 0")
        step_us = {}
        for n, t in steps.items():
            if n.isdecimal() and _time(t):
                step_us[int(n)] = float(t)
            else:
                self._fault(f"step_us.{n}", "microseconds by number of samples")
        tasks = self._take(self.data, "tasks", dict, "tasks") or {}
        found = {name: self._task(name, entry) for name, entry in tasks.items()}
        device = self._device(self._take(self.data, "device", dict, "device") or {})
        return Measured(
            **texts, batch=batch, samples=tuple(samples), device=device, threads=threads, step_us=step_us, tasks=found
        )

    def _task(self, name: str, entry: Any) -> TaskTime:
        at = f"tasks.{name}"
        if not isinstance(entry, dict):
            self._fault(at, "a mapping")
            entry = {"flops": 0, "bytes": 0, "alone_us": [0, 0], "apart_us": [0, 0]}
        flops, moved = (self._take(entry, k, int, f"{at}.{k}") or 0 for k in ("flops", "bytes"))
        lines = []
        for key in ("alone_us", "apart_us"):
            pair = self._take(entry, key, list, f"{at}.{key}")
            if pair is not None and not (len(pair) == 2 and all(map(_time, pair))):
                self._fault(f"{at}.{key}", "two times from 0 on: fixed, and for each sample")
                pair = None
            lines.append(Line(*map(float, pair or (0, 0))))
        return TaskTime(flops, moved, *lines)

    def _device(self, entry: Mapping[str, Any]) -> Device:
        values: dict[str, Any] = {}
        for f in fields(Device):
            kind: type = str if f.name in ("name", "kind") else int if f.name == "memory_bytes" else float
            value = self._take(entry, f.name, kind, f"device.{f.name}")
            if value is not None:
                values[f.name] = value
        if values.get("kind", KIND) != KIND:  # tasks on a device of another kind would not take these times
            self._fault("device.kind", f'"{KIND}"')
        return Device(**values)

    def _positive(self, name: str) -> int:
        value = self._take(self.data, name, int, name)
        if value == 0:
            self._fault(name, "a whole number from 1 on")
        return value or 1

    def _take(self, data: Mapping[str, Any], key: str, kind: type, at: str) -> Any:
        value: Any = data.get(key)
        fits = _time(value) if kind is float else _whole(value) and value >= 0 if kind is int else type(value) is kind
        if fits:
            return kind(value)
        words = {str: "text", int: "a whole number from 0 on", float: "a number from 0 on", list: "a list",
                 dict: "a mapping"}  # fmt: skip
        self._fault(at, words[kind], missing=key not in data)
        return None

    def _fault(self, at: str, wanted: str, missing: bool = False) -> None:
        what = f"'{at}' is missing" if missing else f"'{at}' is not {wanted}"
        self.faults.append(Fault("C003", what, self.where, _AGAIN))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def cache_folder() -> Path | None:
    """Where times are kept between commands; None where there is no place for a cache."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = home if os.path.isabs(home) else os.path.join(os.path.expanduser("~"), ".cache")
    return Path(folder, "reclra-compile", "times") if os.path.isabs(folder) else None


def keep(measured: Measured) -> Path | None:
    """Write the times to the cache; where they are then, or None where they could not be kept."""
    folder = cache_folder()
    if folder is None:
        return None
    how = (measured.host, measured.processor, measured.threads, measured.torch, measured.dtype)
    machine = hashlib.sha256(repr(how).encode()).hexdigest()[:8]
    file = folder / f"{measured.fingerprint}-{measured.work}-{machine}.json"
    with contextlib.suppress(OSError, UserError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_measured(measured, file)
        return file
    return None


def kept(plan: Plan, here: str, dtype: str, device: str | None = None) -> Measured:
    """The newest times of this model and wiring on this host (and this type of device) that the cache has.

    Raises CostError: C005 where there are none, C004 where the file of this model holds those of another, C001–C003.
    """
    folder, work = cache_folder(), work_of(plan)
    found = folder.glob(f"{plan.fingerprint}-*.json") if folder and folder.is_dir() else ()
    files = [f for f in found if f.is_file()]  # a link may lead nowhere
    others = set()
    for file in sorted(files, key=_written_at, reverse=True):
        if not file.name.startswith(f"{plan.fingerprint}-{work}-"):
            others.add(file)
            continue
        measured = read_measured(file)
        check_of(measured, plan, file)
        if (measured.host, measured.dtype) == (here, dtype) and device in (None, measured.device.name):
            return measured
    raise CostError(_nothing(plan, device, bool(others)))


def _written_at(file: Path) -> float:
    """When a file was written; 0 where that cannot be told: it may be gone by now."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def check_of(measured: Measured, plan: Plan, file: str | os.PathLike[str]) -> None:
    """Raise CostError (C004) where the times are those of another model or another wiring."""
    if measured.of(plan):
        return
    theirs = f"{measured.model} with wiring '{measured.wiring}' ({measured.fingerprint})"
    message = f"the times are those of {theirs}, not of {plan.model} with '{plan.name}' ({plan.fingerprint})"
    raise CostError(Fault("C004", message, Location(os.fspath(file)), _AGAIN))


def _nothing(plan: Plan, device: str | None, others: bool) -> Fault:
    on = f"{device} here" if device else "this machine"
    message = f"no times of {plan.model} with wiring '{plan.name}' were measured on {on}"
    more = "; there are times of other wirings, or of this one before it was changed" if others else ""
    command = f"reclra-compile profile MODEL --wiring {plan.name}{f' --device {device}' if device else ''}"
    if plan.name == "auto":  # no file of that name: the compiler has chosen it
        fix = "write the chosen wiring first (--write-wiring FILE, without --device-profile measured), and profile that"
        return Fault("C005", message + more, fix=fix)
    return Fault("C005", message + more, fix=f"run `{command}` first, with the same --granularity")
