"""Reading YAML with the place of every key and value, and with plain words for what is wrong.

Only plain data is built: text, numbers, true and false, null, lists, and mappings with text keys. Other tags are faults
and never run. The pure-Python parser is used, as its messages, unlike libyaml's, are the same everywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from reclra_compile.errors import Fault, Location, WiringError

KeyPath = tuple[str | int, ...]

_SHORT = "a wiring is a few lines of plain lists and mappings; write it out by hand"
MAX_BYTES = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 64
_TAG = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Document:
    """The data of a YAML file, where each value and key stands, its faults, and the paths they broke."""

    data: object = None
    marks: dict[KeyPath, Location] = field(default_factory=dict)
    keys: dict[KeyPath, Location] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)
    readable: bool = True


def read_text(file: str) -> str:
    """The text of a UTF-8 file of at most 1 MiB; raises WiringError where it is anything else."""
    try:
        if os.path.isdir(file):
            raise WiringError(Fault("W001", "this is a directory, not a wiring file", Location(file)))
        with open(file, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise WiringError(Fault("W001", "there is no such file", Location(file))) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise WiringError(Fault("W001", f"the file cannot be read: {reason}", Location(file))) from None
    if len(raw) > MAX_BYTES:
        raise WiringError(Fault("W009", "the file is larger than 1 MiB", Location(file), _SHORT))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = raw.rfind(b"\n", 0, error.start) + 1
        column = len(raw[start : error.start].decode("utf-8", "replace")) + 1
        where = Location(file, raw.count(b"\n", 0, error.start) + 1, column)
        message = f"the file is not UTF-8 text (byte 0x{raw[error.start]:02x})"
        raise WiringError(Fault("W001", message, where, "save the file with the encoding UTF-8")) from None


def read_yaml(text: str, file: str) -> Document:
    """Parse `text`, collecting its faults; `readable` is false where no data could be built at all."""
    document = Document()
    try:
        loader = _Loader(text)
        root = loader.get_node() if loader.check_node() else None
        if root is not None:
            document.data = _Builder(document, file).value(root, (), _start(root, file))
        if loader.check_node():
            where = _place(loader.peek_event().start_mark, file)  # type: ignore[no-untyped-call]
            message = "a second document starts here ('---'), but a wiring is one document"
            document.faults.append(Fault("W002", message, where, "put each wiring into a file of its own"))
    except yaml.YAMLError as error:
        document.readable = False
        document.faults.append(_syntax_fault(error, text, file))
    return document


class _TooLarge(yaml.MarkedYAMLError):
    """The document holds too much, or nests too deeply."""


def _bound(nodes: int, depth: int, mark: yaml.Mark) -> None:
    if depth > MAX_DEPTH:
        raise _TooLarge(None, None, f"lists and mappings nest more than {MAX_DEPTH} deep", mark)
    if nodes > MAX_NODES:
        raise _TooLarge(None, None, f"with aliases expanded there are more than {MAX_NODES} values", mark)


class _Loader(yaml.SafeLoader):
    """Composes nodes; resolves plain scalars as people mean them: `1e-3` and `010` are decimal numbers."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.nodes += 1
        _bound(self.nodes, self.depth, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
_BOOLS = ("yes", "no", "true", "false", "on", "off")
_DIGITS = "[0-9][0-9_]*"
for _name, _pattern, _first in (
    ("bool", "|".join(f"{w}|{w.title()}|{w.upper()}" for w in _BOOLS), "yYnNtTfFoO"),
    ("int", rf"[-+]?{_DIGITS}", "-+0123456789"),
    ("float", rf"[-+]?({_DIGITS}(\.[0-9_]*)?|\.{_DIGITS})([eE][-+]?[0-9]+)?", "-+0123456789."),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^({_pattern})$"), list(_first))


_COLLECTIONS: dict[type[yaml.Node], str] = {yaml.MappingNode: "map", yaml.SequenceNode: "seq"}
_SCALARS = frozenset({"str", "int", "float", "bool", "null", "merge"})


class _Builder:
    """Turns nodes into plain data."""

    def __init__(self, document: Document, file: str) -> None:
        self.document = document
        self.file = file
        self.nodes = 0
        self.open: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: KeyPath, where: Location) -> object:
        self.nodes += 1
        _bound(self.nodes, len(self.open) + 1, node.start_mark)
        self.document.marks[path] = where
        if any(node is o for o in self.open):
            self.fault(path, "W009", "this alias refers to the value it stands in", where, _SHORT)
            return None
        if not self.plain(node, path, where):
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path, where)
        self.open.append(node)
        out: object
        if isinstance(node, yaml.MappingNode):
            out = dict(self.items(node, path))
        else:
            out = [self.value(n, (*path, i), _start(n, self.file)) for i, n in enumerate(node.value)]
        self.open.pop()
        return out

    def plain(self, node: yaml.Node, path: KeyPath, where: Location) -> bool:
        kinds = _SCALARS if isinstance(node, yaml.ScalarNode) else {_COLLECTIONS[type(node)]}
        if node.tag.removeprefix(_TAG) in kinds:
            return True
        tag = _clip(repr(node.tag.replace(_TAG, "!!")))
        message = f"the tag {tag} is not allowed: a wiring holds plain data only, and nothing in it is run"
        self.fault(path, "W013", message, where, "remove the tag")
        return False

    def scalar(self, node: yaml.ScalarNode, path: KeyPath, where: Location) -> object:
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        digits = text.replace("_", "").lower()
        try:
            if kind == "int":
                return int(digits)
            if kind == "float":
                return float(digits.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            self.fault(path, "W005", f"{_clip(repr(text))} cannot be read as a number", where)
            return None
        if kind == "bool":
            return text.lower() in ("yes", "true", "on")
        return None if kind == "null" else text

    def items(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, object]]:
        first: dict[str, Location] = {}
        for key_node, value_node in node.value:
            where = _start(key_node, self.file)
            key = self.key(key_node, path, where)
            if key is None:
                continue
            if key in first:
                message = f"the key {_clip(repr(key))} is given twice; the first is on line {first[key].line}"
                self.document.faults.append(Fault("W008", message, where, "keep one of the two"))
                continue
            inner = (*path, key)
            first[key] = self.document.keys[inner] = where
            empty = value_node.start_mark.index == value_node.end_mark.index
            place = where if empty else _start(value_node, self.file)
            yield key, self.value(value_node, inner, place)

    def key(self, node: yaml.Node, path: KeyPath, where: Location) -> str | None:
        """The text of a key; None, with a fault, where it has to be something else."""
        inside = (*path, "")  # a path of no real key: the mapping is known to be incomplete
        if not self.plain(node, inside, where):
            return None
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            return str(node.value)
        if kind == "merge":
            message = "merge keys ('<<') are not supported"
            fix = "write the keys out; 'target' and 'synapses' hold what all pathways share"
            self.fault((*path, "<<"), "W002", message, where, fix)
        else:
            what, text = _NOT_KEYS[kind], "" if kind in ("null", "map", "seq") else str(node.value)
            fix = f"put the key in quotes: '{_clip(text)}'" if text else ""
            self.fault(inside, "W005", f"a key must be text, not {what} {_clip(text)}".rstrip(), where, fix)
        return None

    def fault(self, path: KeyPath, code: str, message: str, where: Location, fix: str = "") -> None:
        self.document.broken.add(path)
        self.document.faults.append(Fault(code, message, where, fix))


_NOT_KEYS = {"int": "the number", "float": "the number", "bool": "the word", "null": "null"}
_NOT_KEYS |= {"map": "a mapping", "seq": "a list"}


def _clip(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _place(mark: yaml.Mark, file: str) -> Location:
    return Location(file, mark.line + 1, mark.column + 1)


def _start(node: yaml.Node, file: str) -> Location:
    return _place(node.start_mark, file)


def _syntax_fault(error: yaml.YAMLError, text: str, file: str) -> Fault:
    """One fault in plain words for what the parser could not read."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        where = Location(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        message = f"the character {text[error.position]!a} is not allowed in YAML"
        return Fault("W002", message, where, "remove it")
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Fault("W002", "this is not valid YAML", Location(file))
    problem, mark = error.problem or "", error.problem_mark
    if isinstance(error, _TooLarge):
        return Fault("W009", problem, _place(mark, file), _SHORT)
    lines = text.splitlines() or [""]
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "'\\t'" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        return _tab_fault(lines, mark, file)
    begin = error.context_mark or mark
    for part, message, fix, at_begin in _SYNTAX:
        if part in problem:
            place = begin if at_begin else mark
            word = re.match(r"[^\s,\]}]*", line[place.column :])
            said = {"line": begin.line + 1, "text": _clip(word[0]) if word else ""}
            return Fault("W002", message.format(**said), _place(place, file), fix.format(**said))
    if "mapping values" in problem:
        message, fix = _colon(line, mark.column)
        return Fault("W002", message, _place(mark, file), fix)
    return Fault("W002", f"this is not valid YAML: {problem}", _place(mark, file))


def _tab_fault(lines: list[str], mark: yaml.Mark, file: str) -> Fault:
    tabbed = [str(n) for n, line in enumerate(lines, 1) if "\t" in line[: len(line) - len(line.lstrip())]]
    if not tabbed:
        return Fault("W002", "YAML does not allow a tab here", _place(mark, file), "use spaces")
    numbers = ", ".join(tabbed[:8]) + (", …" if len(tabbed) > 8 else "")
    fix = f"use spaces instead (line {numbers})"
    return Fault("W002", "YAML does not allow tabs for indentation", _place(mark, file), fix)


def _colon(line: str, column: int) -> tuple[str, str]:
    if re.search(r":\s", line[:column]):
        fix = "use braces, as in 'kernel: {low_rank: 8}', or put the text in quotes"
        return "a second 'key: value' cannot stand on the same line", fix
    fix = "write 'key: value' above, with a space after ':', and indent this line like its neighbours"
    return "a key cannot stand here: what is above it is read as an unfinished value", fix


_STAR = "a value that starts with '*' is read as a YAML alias, and there is no such anchor"
_LONE = "this line is read as a lone value, but a 'key: value' is needed"
_BLOCK = "this line does not belong to the block that begins on line {line}"
_ALIGN = "indent the entries of a block alike; quote text that starts with a quote, '[' or '{{'"
_QUOTE = "put the value in quotes: '{text}'"
_SYNTAX: tuple[tuple[str, str, str, bool], ...] = (  # part of the message, ours, fix, whether where it began
    ("undefined alias", _STAR, _QUOTE, False),
    ("alphabetic or numeric", "a name is missing after '{text}'", _QUOTE, True),
    ("expected ',' or ']'", "this list is not closed: ',' or ']' is missing", "close it with ']'", True),
    ("expected ',' or '}'", "this mapping is not closed: ',' or '}}' is missing", "close it with '}}'", True),
    ("could not find expected ':'", _LONE, "write 'key: value', with a space after the ':'", True),
    ("unexpected end of stream", "this quote is not closed", "add the closing quote", True),
    ("unknown escape", "'\\' starts no known escape in double quotes", "use single quotes", False),
    ("expected <block end>", _BLOCK, _ALIGN, False),
    ("sequence entries", "a list item ('- …') cannot stand here", "put the list below its key", False),
    ("the node content", "a value is missing here", "write it; quote text with ',', ']' or '}}'", False),
    ("cannot start any token", "no value can start as '{text}' does", _QUOTE, False),
    ("second occurrence", "the anchor '{text}' is used before, on line {line}", "rename one", False),
    ("undefined tag handle", "the tag '{text}' is not known", "remove the tag", False),
    ("incompatible YAML", "only YAML 1 can be read", "remove the line '%YAML'", False),
)  # fmt: skip
