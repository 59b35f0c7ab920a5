"""Writing the settings that a search found into a row of a table file; everything else stays as it is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from reclra_compile.errors import Fault, Location, UserError
from reclra_compile.files import write_text
from reclra_compile.reproduce.tables import load_table

BEHIND = "wiring"  #: keys that a row does not have yet are added behind this one


def write_row(file: Path, row: str, data: str, values: Mapping[str, Any]) -> None:
    """Set keys of the row on a data set, others of its keys, comments and order untouched.

    Raises UserError (R007) where the row is not there, or a value stands in lines of its own.
    """
    text = file.read_text(encoding="utf-8")
    node = _row(text, file, row, data)
    there = {str(key.value): value for key, value in node.value}
    edits: list[tuple[int, int, str]] = []
    for key, value in values.items():
        new = _flow(value)
        old = there.get(key)
        if old is None:
            at = there[BEHIND].end_mark.index
            edits.append((at, at, f"\n{' ' * node.start_mark.column}{key}: {new}"))
        elif isinstance(old, yaml.ScalarNode) or old.flow_style:
            edits.append((old.start_mark.index, old.end_mark.index, new))
        else:
            where = Location(str(file), old.start_mark.line + 1)
            raise UserError(Fault("R007", f"'{key}' stands in lines of its own", where, f"write it as {key}: {{…}}"))
    for start, end, new in sorted(edits, key=lambda e: e[:2], reverse=True):
        text = text[:start] + new + text[end:]
    node = _row(text, file, row, data)
    found = yaml.safe_load(yaml.serialize(node))
    if any(_flow(found.get(key)) != _flow(value) for key, value in values.items()):
        raise UserError(Fault("R007", f"the settings of '{row}' cannot be written here", Location(str(file))))
    draft = file.with_name(f".{file.stem}.draft.yaml")
    try:
        write_text(draft, text)
        load_table(draft)  # before anything is replaced
    finally:
        draft.unlink(missing_ok=True)
    write_text(file, text)


def _row(text: str, file: Path, row: str, data: str) -> yaml.MappingNode:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # the file was read as a table before
    rows = next(value for key, value in root.value if key.value == "rows")
    for node in rows.value:
        plain = {key.value: value.value for key, value in node.value}
        if (plain.get("row"), plain.get("data")) == (row, data):
            return node  # type: ignore[no-any-return]
    raise UserError(Fault("R007", f"there is no row '{row}' on {data}", Location(str(file))))


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()
