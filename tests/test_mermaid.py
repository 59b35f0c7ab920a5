"""Mermaid flowcharts: every line is one that the grammar knows, and no name can become syntax."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from test_view import HOSTILE, depth1, make, region

from reclra_compile.ir import Plan, Target
from reclra_compile.view.draw import write_picture
from reclra_compile.view.mermaid import to_mermaid, too_large

#: a quoted text of letters, digits, a few signs, numbered characters, and line breaks
TEXT = r'"(?:[\w .,:/+()=×·…-]|#\d+;|<br>)+"'
LINES = {
    "box": rf"n\d+(?:\[{TEXT}\]|\(\[{TEXT}\]\))",
    "open": rf"subgraph b\d+ \[{TEXT}\]",
    "close": "end",
    "forward": r"n\d+ --> n\d+",
    "pathway": r"n\d+ (?:==>|-\.->)(?:\|\d+\|)? n\d+",
    "style": r"linkStyle \d+(?:,\d+)* stroke:#[0-9a-f]{6},stroke-width:\dpx",
    "kind": r"classDef (?:w\d+ stroke:#[0-9a-f]{6},stroke-width:2px|frozen stroke-dasharray:4 3)",
    "of": r"class n\d+(?:,n\d+)* (?:w\d+|frozen)",
}


def lines(text: str) -> list[tuple[str, str]]:
    """The chart's lines with their kinds; each has to be of one."""
    first, title, second, chart, *rest = text.splitlines()
    assert (first, second) == ("---", "---") and re.fullmatch(r'title: "[^%#]*"', title)
    assert json.loads(title.partition(": ")[2])
    assert chart in ("flowchart LR", "flowchart BT")
    found = []
    for line in rest:
        kinds = [kind for kind, form in LINES.items() if re.fullmatch(form, line.strip())]
        assert len(kinds) == 1, line
        found.append((kinds[0], line.strip()))
    return found


def nested(names: tuple[str, ...], blocks: tuple[tuple[str, ...], ...]) -> Plan:
    """A chain of regions in blocks, with errors from its end to all, and one tied pathway."""
    regions = [
        replace(region(n, f"z.{names[k - 1]}" if k else "x0"), within=blocks[k]) for k, n in enumerate(names)
    ]
    links = [(names[-1], n) for n in names[:-2]] + [(names[-1], names[-2], "adjoint")]
    return make("nested", regions, links)


def test_boxes_lines_and_waves_are_those_of_the_plan() -> None:
    plan = nested(("a", "b", "c", "d"), (("one",), ("one", "two"), ("one", "two"), ()))
    found = lines(to_mermaid(plan))
    count = Counter(kind for kind, _ in found)
    assert count["box"] == len(plan.inputs) + len(plan.regions) + 1
    assert count["open"] == count["close"] == 2
    assert count["forward"] == 5 and count["pathway"] == 4  # the loss has an arrow each way
    number = {m[2]: m[1] for _, line in found if (m := re.match(r'(n\d+)\["(\w+)<br>', line))}
    arrows = [line for kind, line in found if kind == "pathway"]
    assert f"{number['d']} ==>|1| {number['a']}" in arrows
    assert f"{number['d']} -.->|1| {number['c']}" in arrows
    assert f"class {number['a']},{number['b']},{number['c']} w1" in [line for _, line in found]


def test_blocks_hold_their_regions() -> None:
    text = to_mermaid(nested(("a", "b", "c", "d"), (("one",), ("one", "two"), ("one", "two"), ())))
    depth, inside = 0, {}
    for kind, line in lines(text):
        depth += (kind == "open") - (kind == "close")
        assert depth >= 0
        if kind == "box":
            inside[line.split('"')[1].split("<br>")[0]] = depth
    assert depth == 0
    assert {n: inside[n] for n in "abcd"} == {"a": 1, "b": 2, "c": 2, "d": 0}


def test_every_line_has_a_style_and_numbers_fit() -> None:
    found = lines(to_mermaid(nested(tuple("abcdef"), ((),) * 6)))
    drawn = sum(kind in ("forward", "pathway") for kind, _ in found)
    styled = [int(n) for kind, line in found if kind == "style" for n in line.split()[1].split(",")]
    assert sorted(styled) == list(range(drawn))
    boxes = {line.split("[")[0].split("(")[0] for kind, line in found if kind == "box"}
    for kind, line in found:
        if kind in ("forward", "pathway", "of"):
            assert set(re.findall(r"n\d+", line)) <= boxes


def test_hostile_names_are_text() -> None:
    names = tuple(f"{HOSTILE}%%{{init: {{}}}}%%`end`{k}" for k in range(3))
    plan = nested(names, ((HOSTILE,), (HOSTILE,), ()))
    found = lines(to_mermaid(replace(plan, name=HOSTILE + "%%{init}%%\n---", model="]")))
    assert sum(kind == "box" for kind, _ in found) == 5


def test_frozen_regions_are_dashed() -> None:
    plan = nested(("a", "b"), ((), ()))
    plan = replace(plan, targets=(Target("a", "lra", trainable=False),))
    assert ("of", "class n1 frozen") in lines(to_mermaid(plan))


def test_what_mermaid_refuses_is_known() -> None:
    assert not too_large(to_mermaid(depth1(100)))
    assert too_large(to_mermaid(depth1(260)))  # 520 lines and more
    assert not too_large(to_mermaid(depth1(4)) + " " * 40_000) and too_large(to_mermaid(depth1(4)) + " " * 50_000)


@pytest.mark.parametrize("suffix", [".mmd", ".mermaid"])
def test_files_of_both_suffixes(tmp_path: Path, suffix: str) -> None:
    plan = nested(("a", "b"), ((), ()))
    write_picture(plan, tmp_path / f"x{suffix}")
    assert (tmp_path / f"x{suffix}").read_text(encoding="utf-8") == to_mermaid(plan)
