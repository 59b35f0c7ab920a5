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
from typing import Any, TypeVar

from reclra_compile.errors import Fault, Location, PlanError, nearest
from reclra_compile.ir import Cost, Pathway, Placement, Plan, Region, Target, Task, Training

HEADER = "reclra-compile plan"
VERSION = 1
_BARE = re.compile(r"[A-Za-z_α-ω][^\s\"=,\[\]{}]*")
_FIELD = re.compile(r"\s*(\w+)=")
_RESERVED = ("true", "false", "null", "NaN", "Infinity")

T = TypeVar("T")

#: record kind → dataclass and the fields written without a key at the start of the line
_RECORDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "region": (Region, ("name",)),
    "target": (Target, ("region",)),
    "pathway": (Pathway, ("name",)),
    "task": (Task, ("kind", "subject")),
    "placement": (Placement, ()),
    "cost": (Cost, ()),
    "training": (Training, ()),
}
_LISTS = {"region": "regions", "target": "targets", "pathway": "pathways", "task": "tasks"}
_SCALARS = ("name", "model", "fingerprint", "batch", "output", "inputs")


def format_plan(plan: Plan) -> str:
    """The plan as text; `parse_plan` reads it back equal."""
    lines = [f"{HEADER} {plan.version}"]
    lines.append("plan " + " ".join(f"{k}={_value(getattr(plan, k))}" for k in _SCALARS))
    for kind, field in _LISTS.items():
        lines.append(f"# {field}")
        lines += [_line(kind, record) for record in getattr(plan, field)]
        if kind == "pathway":
            lines += ["# waves", *(f"wave {_value(w)}" for w in plan.waves)]
    lines += ["# placement, cost, training"]
    lines += [_line(kind, getattr(plan, kind)) for kind in ("placement", "cost", "training")]
    lines += [f"warning {json.dumps(w, ensure_ascii=False)}" for w in plan.warnings]
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
    if isinstance(value, str) and _BARE.fullmatch(value) and value not in _RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_plan(text: str, file: str = "<plan>") -> Plan:
    """Read a plan's text; raises PlanError (P001–P004) that lists every malformed line."""
    reader = _Reader(file)
    for number, line in enumerate(text.splitlines(), 1):
        reader.line(number, line)
    return reader.plan()


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.found: dict[str, list[Any]] = {}
        self.header = False

    def line(self, number: int, line: str) -> None:
        where = Location(self.file, number)
        stripped = line.strip()
        if not self.header:
            self._header(stripped, where)
        elif stripped and not stripped.startswith("#"):
            kind, _, rest = stripped.partition(" ")
            try:
                self.found.setdefault(kind, []).append(self._record(kind, rest))
            except (ValueError, TypeError) as error:
                self.faults.append(Fault("P002", str(error), where))

    def _header(self, line: str, where: Location) -> None:
        self.header = True
        if not line.startswith(HEADER):
            self.faults.append(Fault("P001", f"not a plan: the first line has to be '{HEADER} {VERSION}'", where))
        elif line.removeprefix(HEADER).strip() != str(VERSION):
            found = line.removeprefix(HEADER).strip() or "none"
            self.faults.append(
                Fault("P001", f"plan version {found}; this build reads {VERSION}", where, "compile the model again")
            )

    def _record(self, kind: str, rest: str) -> Any:
        if kind in ("wave", "warning"):
            value, end = _read_value(rest, 0)
            if rest[end:].strip():
                raise ValueError(f"unexpected text after the value: '{rest[end:].strip()}'")
            return _convert(value, tuple[str, ...] if kind == "wave" else str, kind)
        if kind == "plan":
            return _fields(Plan, rest, 0, {})
        if kind not in _RECORDS:
            raise ValueError(f"unknown record '{kind}'; {nearest(kind, ['plan', 'wave', 'warning', *_RECORDS])}")
        cls, positional = _RECORDS[kind]
        given: dict[str, Any] = {}
        at = 0
        for name in positional:
            given[name], at = _read_value(rest, at)
        return cls(**_fields(cls, rest, at, given))

    def plan(self) -> Plan:
        for kind in ("plan", "region", "wave"):
            if not self.faults and not self.found.get(kind):
                self.faults.append(Fault("P003", f"the plan has no '{kind}' line", Location(self.file)))
        if self.faults:
            raise PlanError(self.faults)
        one = {k: self.found[k][-1] for k in ("placement", "cost", "training") if k in self.found}
        try:
            return Plan(
                **self.found["plan"][-1],
                **{field: tuple(self.found.get(kind, ())) for kind, field in _LISTS.items()},
                waves=tuple(self.found["wave"]),
                warnings=tuple(self.found.get("warning", ())),
                **one,
            )
        except TypeError as error:
            raise PlanError(Fault("P003", f"the 'plan' line is incomplete: {error}", Location(self.file))) from error


def _fields(cls: type[Any], text: str, at: int, given: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    values = dict(given)
    while at < len(text.rstrip()):
        match = _FIELD.match(text, at)
        if not match:
            raise ValueError(f"expected key=value at '{text[at:].strip()[:30]}'")
        key = match.group(1)
        if key not in hints or key in given:
            raise ValueError(f"unknown field '{key}'; {nearest(key, [h for h in hints if h not in given])}")
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
        raise ValueError(f"malformed value at '{text[at : at + 30]}'") from error
    return value, end


def _convert(value: Any, hint: Any, field: str) -> Any:
    """Check `value` against the field's type; lists become tuples."""
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, list):
        inner = typing.get_args(hint)
        kinds: Iterable[Any] = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else inner
        return tuple(_convert(v, k, field) for v, k in zip(value, kinds, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is None and type(value) is hint:
        return value
    raise ValueError(f"field '{field}' is {value!r}, which is not of type {getattr(hint, '__name__', hint)}")
