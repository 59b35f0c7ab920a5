"""A plan drawn in the terminal: lanes of error pathways by wave beside the regions, and the waves below."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reclra_compile.cli.report import MANY, WAVE_STYLES, count, print_report, room_of
from reclra_compile.ir import Plan
from reclra_compile.view.ascii import ASCII, BOXES, FEW, NO_WAVE, Line, Node, strand
from reclra_compile.view.blocks import blocks

LEAST = 44  #: columns that are kept for text at the right of lanes
SHORTEST = 10  #: of a name
HEARD = 14  #: of the sources of a line that has no lane for them, where there are such lines
_PLAIN = str.maketrans({"×": "x", "·": ".", "φ": "f", "…": "~", "←": "<", "–": "-", "Θ": "T", "β": "b"})


@dataclass(frozen=True, slots=True)
class _Columns:
    """Widths of the text beside the lanes; 0: left out."""

    name: int
    what: int
    shape: int
    wave: int
    device: int


def print_graph(plan: Plan, collapse: bool | None) -> None:
    """Print the plan; `collapse`: blocks as one line each, None: where there are many regions."""
    print_report(lambda out: _draw(out, plan, collapse))


def _draw(out: Console, plan: Plan, collapse: bool | None) -> None:
    boxes = _can_draw_boxes()
    wanted = len(plan.regions) > FEW if collapse is None else collapse
    collapsed = wanted and bool(blocks(plan))
    room = room_of(out)
    lines = strand(plan, collapsed, (room or 160) - LEAST, BOXES if boxes else ASCII)
    head = f"{count(len(plan.regions), 'region')}, {count(len(plan.pathways), 'error pathway')}, " \
           f"{count(len(plan.waves), 'wave')}"  # fmt: skip
    title = Text.assemble((_shown(plan.model), "bold"), " × ", (_shown(plan.name), "bold"), f": {head}")
    _print(out, title, boxes, room)
    _print(out, Text("forward runs up, errors run down the lanes"
                     + ("; blocks are one line each (--nested shows their regions)" if collapsed else ""), "dim"),
           boxes, room)  # fmt: skip
    out.print()
    devices = _devices(plan)
    columns = _columns(lines, devices, room)
    for line in lines:
        _print(out, _text(line, columns, devices, room), boxes, room)
    out.print()
    waves = Table.grid(padding=(0, 2))
    for k, names in enumerate(plan.waves):
        more = f" … {len(names) - MANY} more" if len(names) > MANY else ""
        listed = Text.assemble(", ".join(map(_shown, names[:MANY])), (more, "dim"))
        waves.add_row(Text(f"wave {k}", _style(k)), listed if boxes else _plain(listed))
    out.print(waves)
    if any(p.edge for p in plan.pathways):
        down = BOXES.tied_across * 2 if boxes else ASCII.tied_across * 2
        _print(out, Text(f"{down} along the model's own edges, with its weights or their mirrors", "dim"), boxes, None)


def _can_draw_boxes() -> bool:
    """False where standard output's encoding has not the characters of lanes."""
    try:
        "".join([BOXES.down, BOXES.tied_down, BOXES.hears, *BOXES.joints.values()]).encode(
            getattr(sys.stdout, "encoding", None) or "ascii"
        )
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _print(out: Console, text: Text, boxes: bool, room: int | None) -> None:
    text = text if boxes else _plain(text)
    if room is not None:
        text.truncate(room, overflow="ellipsis" if boxes else "crop")
    out.print(text, soft_wrap=True)


def _plain(text: Text) -> Text:
    return Text(text.plain.translate(_PLAIN).encode("ascii", "replace").decode(), spans=text.spans)


def _shown(name: str) -> str:
    """A name, which is free text, without characters that move the cursor."""
    return "".join(c if c.isprintable() else " " for c in name)


def _style(wave: int) -> str:
    return "" if wave == NO_WAVE else WAVE_STYLES[wave % len(WAVE_STYLES)]


def _devices(plan: Plan) -> dict[str, str]:
    """The device of each region, where there are several."""
    if len(plan.devices) < 2:
        return {}
    return {name: _shown(plan.devices[d].name) for name, d in plan.placement.regions}


def _columns(lines: Sequence[Line], devices: dict[str, str], room: int | None) -> _Columns:
    """As wide as they need to be, or with the least important left out and names shortened."""
    nodes = [line.node for line in lines if line.node is not None]
    need = [max(map(cell_len, column), default=0) for column in zip(*map(_cells, nodes), strict=True)]
    widths = [*need, max(map(cell_len, devices.values()), default=0)]
    if room is None:
        return _Columns(*widths)
    # what has no lane stands at the end of its line, and is told before operations and devices are
    heard = min(HEARD, max((cell_len(_listed("←", line.also)) for line in lines), default=0))
    free = room - len(lines[0].lanes) - 1 - heard
    for drop in (2, 1, 4):  # shape, what, device
        if sum(w + 2 for w in widths if w) <= free:
            break
        least = min(widths[0], 24) - widths[0]
        if sum(w + 2 for w in widths if w) + least <= free:
            break
        widths[drop] = 0
    rest = sum(w + 2 for w in widths[1:] if w)
    widths[0] = min(widths[0], max(SHORTEST, free - rest - 1))
    return _Columns(*widths)


def _cells(node: Node) -> tuple[str, str, str, str]:
    name = "  " * node.depth + ("▸ " if node.kind == "folded" else "") + _shown(node.name)
    return name, _shown(node.what), node.shape, _waves(node)


def _waves(node: Node) -> str:
    if not node.waves:
        return ""
    low, high = node.waves[0], node.waves[-1]
    return f"wave {low}" if low == high else f"wave {low}–{high}"


def _text(line: Line, columns: _Columns, devices: dict[str, str], room: int | None) -> Text:
    text = Text()
    for char, wave in line.lanes:
        text.append(char, _style(wave))
    node = line.node
    if node is None:
        return text
    name, what, shape, waves = _cells(node)
    bold = "bold" if node.kind in ("region", "folded") else "dim" if node.kind == "block" else ""
    text.append(f" {_padded(_short(name, columns.name), columns.name)}", bold)
    style = _style(node.waves[0]) if node.waves else ""
    for cell, width, kind in ((what, columns.what, ""), (shape, columns.shape, "dim"), (waves, columns.wave, style),
                              (devices.get(node.name, ""), columns.device, "")):  # fmt: skip
        if width:
            text.append(f"  {_padded(cell, width)}", kind)
    text.rstrip()
    for sign, names, least, kind in (("←", line.also, 3, style), ("reads", node.reads, 8, "dim")):
        left = None if room is None else room - cell_len(text.plain)
        text.append(_listed(sign, names, left, least) or ("  ←" if sign == "←" and names else ""), kind)
    return text


def _listed(sign: str, names: Sequence[str], room: int | None = None, least: int = 0) -> str:
    """Names behind a sign, shortened to `room` columns; nothing where they would be shorter than `least`."""
    text = f"  {sign} {', '.join(map(_shown, names))}" if names else ""
    if room is None or cell_len(text) <= room:
        return text
    each = (room - len(sign) - 3 - 2 * (len(names) - 1)) // len(names)
    return "" if each < least else f"  {sign} {', '.join(_short(_shown(n), each) for n in names)}"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _short(name: str, width: int) -> str:
    """The name with its middle left out where it is wider; the end of a dotted path says more than its start."""
    if cell_len(name) <= width:
        return name
    for kept in range(min(len(name), width) - 1, 0, -1):
        tail = kept * 3 // 5
        short = f"{name[: kept - tail]}…{name[len(name) - tail :]}"
        if cell_len(short) <= width:
            return short
    return "…"
