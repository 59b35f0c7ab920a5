"""Plan ⇄ text: one line a record, fields as key=value, defaults left out; readable, diffable, editable.

    plan name=depth2 model=MLP fingerprint=… batch=32 output=z.net.6
    region net.0 op=Linear phi=relu inputs=["x0"] outputs=["z.net.0"] shape=[64] …
    pathway net.6->net.4 source=net.6 target=net.4 kernel=dense update=local_readout …
    wave ["net.6"]
    task F net.0 reads=["x0"] writes=["z.net.0","h.net.0"] …

Values are JSON; a string that is one plain word stands bare. Lines starting with # are comments.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterable
from typing import Any

from reclra_compile.errors import Fault, Location, Notice, PlanError, nearest
from reclra_compile.ir import Cost, Device, Pathway, Placement, Plan, Region, Schedule, Shape, Target, Task, Training

CODES = {
    "P001": "the file is not a plan, or a plan of a version that this build does not read",
    "P002": "a line of the plan is malformed",
    "P003": "a line of the plan is missing or stands there twice",
}
HEADER = "reclra-compile plan"
VERSION = 1
_BARE = re.compile(r"[A-Za-z_α-ω][^\s\"=,\[\]{}]*")
_FIELD = re.compile(r"\s*(\w+)=")
_RESERVED = ("true", "false", "null", "NaN", "Infinity")


@dataclasses.dataclass(frozen=True, slots=True)
class _Head:
    """The fields of a plan that stand on its `plan` line."""

    name: str
    model: str
    fingerprint: str
    batch: int
    output: str
    inputs: tuple[tuple[str, Shape, str], ...]
    idle: tuple[str, ...] = ()


#: record kind → dataclass and the fields written without a key at the start of the line
_RECORDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "plan": (_Head, ()),
    "region": (Region, ("name",)),
    "target": (Target, ("region",)),
    "pathway": (Pathway, ("name",)),
    "task": (Task, ("kind", "subject")),
    "device": (Device, ("name",)),
    "placement": (Placement, ()),
    "schedule": (Schedule, ()),
    "cost": (Cost, ()),
    "training": (Training, ()),
    "warning": (Notice, ("message",)),
}
_TYPES = {cls: typing.get_type_hints(cls) for cls, _ in _RECORDS.values()}
_LISTS = {"region": "regions", "target": "targets", "pathway": "pathways", "task": "tasks", "device": "devices"}
_PARTS = ("placement", "schedule", "cost", "training")
_ONCE = ("plan", *_PARTS)
_NEEDED = ("plan", "region", "wave")


def format_plan(plan: Plan) -> str:
    """The plan as text; `parse_plan` reads it back equal."""
    lines = [f"{HEADER} {plan.version}", _line("plan", plan)]
    for kind, field in _LISTS.items():
        lines.append(f"# {field}")
        lines += [_line(kind, record) for record in getattr(plan, field)]
        if kind == "pathway":
            lines += ["# waves", *(f"wave {_json(w)}" for w in plan.waves)]
    lines += [f"# {', '.join(_PARTS)}"]
    lines += [_line(kind, getattr(plan, kind)) for kind in _PARTS]
    lines += [_line("warning", w) for w in plan.warnings]
    return "\n".join(lines) + "\n"


def _line(kind: str, record: Any) -> str:
    cls, positional = _RECORDS[kind]
    parts = [kind, *(_value(getattr(record, p)) for p in positional)]
    for f in dataclasses.fields(cls):
        value = getattr(record, f.name)
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if f.name not in positional and value != default:
            parts.append(f"{f.name}={_value(value)}")
    return " ".join(parts)


def _value(value: Any) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value) and value not in _RESERVED and value.isprintable():
        return value
    return _json(value)


def _json(value: Any) -> str:
    """One line of printable JSON: what would break a line or cannot be encoded is escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isprintable() else json.dumps(value, separators=(",", ":"))


def parse_plan(text: str, file: str = "<plan>") -> Plan:
    """Read a plan's text; raises PlanError (P001–P003) that lists every malformed line."""
    first, *rest = text.removeprefix("\ufeff").split("\n")
    _check_header(first.strip(), Location(file, 1))
    reader = _Reader(file)
    for number, line in enumerate(rest, 2):
        reader.line(number, line.strip())
    return reader.plan()


def _check_header(line: str, where: Location) -> None:
    """Raise at once for what is no plan: its other lines mean nothing."""
    if not line.startswith(HEADER):
        fault = Fault("P001", "this is not a plan", where, f"a plan's first line is '{HEADER} {VERSION}'")
        raise PlanError(fault)
    found = line.removeprefix(HEADER).strip()
    if found != str(VERSION):
        raise PlanError(
            Fault("P001", f"plan version {found[:20] or 'missing'}; this build reads {VERSION}", where,
                  "compile the model again")
        )


class _Reader:
    """Reads line by line and keeps the faults, so that all are reported together."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.found: dict[str, list[Any]] = {}

    def line(self, number: int, line: str) -> None:
        if not line or line.startswith("#"):
            return
        where = Location(self.file, number)
        kind, _, rest = line.partition(" ")
        if kind in _ONCE and kind in self.found:
            self.faults.append(Fault("P003", f"a second '{kind}' line", where, "keep one of the two"))
        record = None
        try:
            record = _record(kind, rest)
        except ValueError as error:
            self.faults.append(Fault("P002", str(error), where))
        except RecursionError:
            self.faults.append(Fault("P002", "lists are nested too deeply", where))
        self.found.setdefault(kind, []).append(record)

    def plan(self) -> Plan:
        for kind in _NEEDED:
            if not self.found.get(kind):
                self.faults.append(Fault("P003", f"the plan has no '{kind}' line", Location(self.file)))
        if self.faults:
            raise PlanError(self.faults)
        head: _Head = self.found["plan"][0]
        return Plan(
            name=head.name,
            model=head.model,
            fingerprint=head.fingerprint,
            batch=head.batch,
            inputs=head.inputs,
            output=head.output,
            regions=self._all("region"),
            targets=self._all("target"),
            pathways=self._all("pathway"),
            waves=self._all("wave"),
            tasks=self._all("task"),
            devices=self._all("device") or (Device(),),
            placement=self._one("placement", Placement()),
            schedule=self._one("schedule", Schedule()),
            cost=self._one("cost", Cost()),
            training=self._one("training", Training()),
            warnings=self._all("warning"),
            idle=head.idle,
        )

    def _all(self, kind: str) -> tuple[Any, ...]:
        return tuple(self.found.get(kind, ()))

    def _one(self, kind: str, default: Any) -> Any:
        return self.found.get(kind, [default])[0]


def _record(kind: str, rest: str) -> Any:
    """The record of one line without its first word; ValueError where it is malformed."""
    if kind == "wave":
        value, end = _read_value(rest, 0)
        if rest[end:].strip():
            raise ValueError(f"unexpected text after the value: {_shown(rest, end)}")
        return _convert(value, tuple[str, ...], kind)
    if kind not in _RECORDS:
        raise ValueError(f"unknown record '{kind[:30]}'; {nearest(kind, ['wave', *_RECORDS])}")
    cls, positional = _RECORDS[kind]
    given: dict[str, Any] = {}
    at = 0
    for name in positional:
        if not rest[at:].strip():
            raise ValueError(f"this {kind} line has no {name}")
        given[name], at = _read_value(rest, at)
    given = _fields(cls, rest, at, given)
    missing = [f"'{name}'" for name in _required(cls) if name not in given]
    if missing:
        raise ValueError(f"this {kind} line has no {', '.join(missing)}")
    return cls(**given)


def _required(cls: type[Any]) -> list[str]:
    unset = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(cls) if f.default is unset and f.default_factory is unset]


def _fields(cls: type[Any], text: str, at: int, given: dict[str, Any]) -> dict[str, Any]:
    hints = _TYPES[cls]
    values = dict(given)
    while text[at:].strip():
        match = _FIELD.match(text, at)
        if not match:
            raise ValueError(f"expected key=value at {_shown(text, at)}")
        key = match.group(1)
        if key in values:
            raise ValueError(f"field '{key}' is given twice")
        if key not in hints:
            raise ValueError(f"unknown field '{key[:30]}'; {nearest(key, [h for h in hints if h not in given])}")
        values[key], at = _read_value(text, match.end())
    return {k: _convert(v, hints[k], k) for k, v in values.items()}


def _read_value(text: str, at: int) -> tuple[Any, int]:
    """The JSON value or bare word at `at` (leading blanks skipped), and where it ends."""
    while at < len(text) and text[at] == " ":
        at += 1
    bare = _BARE.match(text, at)
    if bare and bare.group() not in _RESERVED:
        return bare.group(), bare.end()
    try:
        value, end = json.JSONDecoder().raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise ValueError(f"malformed value at {_shown(text, at)}") from error
    except ValueError as error:
        raise ValueError(f"number too long at {_shown(text, at)}") from error
    return value, end


def _shown(text: str, at: int) -> str:
    rest = text[at:].strip()
    return f"'{rest[:30]}'" if rest else "the end of the line"


def _convert(value: Any, hint: Any, field: str) -> Any:
    """Check `value` against the field's type; lists become tuples."""
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        inner = typing.get_args(hint)
        if inner[-1] is Ellipsis:
            return tuple(_convert(v, inner[0], field) for v in value)
        if len(value) == len(inner):
            return tuple(_convert(v, h, field) for v, h in zip(value, inner, strict=True))
    if hint is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is hint:
        return value
    raise ValueError(f"field '{field}' has {_json(value)[:40]}, but needs {_wanted(hint)}")


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _wanted(hint: Any) -> str:
    if typing.get_origin(hint) is not tuple:
        return _WORDS.get(hint, str(hint))
    inner: Iterable[Any] = typing.get_args(hint)
    words = ["…" if h is Ellipsis else _wanted(h) for h in inner]
    return f"[{', '.join(words)}]"
