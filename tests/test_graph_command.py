"""`reclra-compile graph`: pictures in the terminal, whose lines say what the plan does, and in files."""

from __future__ import annotations

import json
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT
from synthetic import chain, dag
from test_view import backprop, make, mlp, region

from reclra_compile.cli.main import main
from reclra_compile.cli.text_graph import print_graph
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.verify import verify
from reclra_compile.view.ascii import ASCII, BOXES, Line, strand

UP, DOWN = frozenset("│┊╰├┴┼"), frozenset("│┊╭├┬┼")
JOINTS = frozenset("╭╰├┬┴┼")


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["graph", *map(str, words)])


def saved(plan: Plan, folder: Path, name: str = "net.plan") -> Path:
    (folder / name).write_text(str(plan), encoding="utf-8")
    return folder / name


def read_off(lines: tuple[Line, ...]) -> set[tuple[str, str]]:
    """(source, target) of all pathways, as somebody reads them who follows the lines with a finger."""
    rows = ["".join(c for c, _ in line.lanes) for line in lines]
    names, last = [], ""
    for line in lines:
        last = line.node.name if line.node else last
        names.append(last)
    found = set()
    for k, row in enumerate(rows):
        if row[-1] != BOXES.hears:
            continue
        for x in (x for x, char in enumerate(row) if char in JOINTS):
            lane = [k]
            for step, goes, meets in ((-1, UP, DOWN), (1, DOWN, UP)):
                at = k
                while rows[at][x] in goes:
                    at += step
                    assert rows[at][x] in meets, "a line ends in nothing"
                    lane.append(at)
            sources = [names[at] for at in lane if rows[at][-1] in "╯○●" and rows[at][x] in JOINTS]
            assert len(sources) == 1, (names[k], sources)
            found.add((sources[0], names[k]))
    return found


def pathways(plan: Plan) -> set[tuple[str, str]]:
    return {(p.source, p.target) for p in plan.pathways} | {("loss", plan.waves[0][0])}


@pytest.mark.parametrize("plan", [chain(6), chain(9, "backprop"), backprop(4), *(dag(k, 12 + k) for k in range(25))])
def test_lines_lead_from_sources_to_targets(plan: Plan) -> None:
    assert read_off(strand(plan, False, 200)) == pathways(plan)


def test_what_is_heard_is_a_line_below_and_a_skip_is_named() -> None:
    lines = strand(dag(3, 12), False, 200)
    shown = [line.node.name for line in lines if line.node]
    assert shown == ["loss", *(f"r{k}" for k in reversed(range(12))), "x0"]
    by_name = {line.node.name: line.node for line in lines if line.node}
    for k, r in enumerate(dag(3, 12).regions):
        sources = {v.removeprefix("z.") for v in r.inputs}
        below = {f"r{k - 1}"} if k else {"x0"}
        assert set(by_name[r.name].reads) == (set() if sources == below else sources)


def test_lanes_without_room_are_words() -> None:
    plan = dag(7, 40)
    wide, narrow = strand(plan, False, 200), strand(plan, False, 8)
    assert len(narrow[0].lanes) <= 8 < len(wide[0].lanes)
    told = {(s, line.node.name) for line in narrow if line.node for s in line.also}
    assert told and read_off(narrow) | told == pathways(plan)


def nested() -> Plan:
    """Three blocks of two regions, the middle one inside another."""
    names = [f"{block}.{k}" for block in "abc" for k in (1, 2)]
    around = {"a": ("a",), "b": ("a", "b"), "c": ("c",)}
    regions = [replace(region(n, f"z.{names[k - 1]}" if k else "x0"), within=around[n[0]]) for k, n in enumerate(names)]
    regions.append(region("head", "z.c.2"))
    links = [("head", f"{b}.2") for b in "abc"] + [(f"{b}.2", f"{b}.1") for b in "abc"]
    return make("nested", regions, links)


def test_blocks_are_above_their_regions_or_one_line() -> None:
    nodes = [line.node for line in strand(nested(), False, 80) if line.node]
    assert [("  " * n.depth) + n.name for n in nodes if n.kind in ("region", "block")] == [
        "head", "c", "  c.2", "  c.1", "a", "  b", "    b.2", "    b.1", "  a.2", "  a.1",
    ]  # fmt: skip
    lines = strand(nested(), True, 80)
    assert [(line.node.name, line.node.waves) for line in lines if line.node and line.node.kind != "input"] == [
        ("loss", ()), ("head", (0,)), ("c", (1, 2)), ("b", (1, 2)), ("a", (1, 2)),
    ]  # fmt: skip
    assert read_off(lines) == {("loss", "head"), ("head", "c"), ("head", "b"), ("head", "a")}


def test_a_large_model_is_collapsed_by_its_dotted_names() -> None:
    names = [f"layer{a}.{b}.conv{c}" for a in range(5) for b in range(5) for c in range(5)]
    regions = [region(n, f"z.{names[k - 1]}" if k else "x0") for k, n in enumerate(names)]
    plan = make("deep", [*regions, region("head", f"z.{names[-1]}")], [("head", n) for n in names])
    shown = [line.node.name for line in strand(plan, True, 80) if line.node]
    assert shown == ["loss", "head", *(f"layer{a}.{b}" for a in range(4, -1, -1) for b in range(4, -1, -1)), "x0"]
    deeper = [replace(r, name=f"{r.name}.{k}", outputs=(f"z.{r.name}.{k}",)) for r in regions for k in range(3)]
    plan = make("deeper", [*deeper, region("head", deeper[-1].outputs[0])], [("head", r.name) for r in deeper])
    assert "layer4.4" in [line.node.name for line in strand(plan, True, 80) if line.node]
    assert len([line for line in strand(plan, False, 80) if line.node]) == 378

def test_the_terminal_shows_regions_waves_and_pathways(tmp_path: Path) -> None:
    result = run(saved(chain(4), tmp_path))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "Chain × synthetic: 4 regions, 3 error pathways, 2 waves",
        "forward runs up, errors run down the lanes",
        "",
        "╭──○ loss",
        "╰──▶ r3    Linear tanh  8  wave 0",
        "╭──╯",
        "├──▶ r2    Linear tanh  8  wave 1",
        "├──▶ r1    Linear tanh  8  wave 1",
        "╰──▶ r0    Linear tanh  8  wave 1",
        "   □ x0    input        8",
        "",
        "wave 0  r3",
        "wave 1  r2, r1, r0",
    ]


def test_a_terminal_without_box_characters_gets_ascii(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")  # errors="strict": anything else would raise
    monkeypatch.setattr(sys, "stdout", out)
    print_graph(replace(chain(4), name="φ-net"), None)
    out.flush()
    text = out.buffer.getvalue().decode("ascii")
    assert "`--> r3" in text and ",--o loss" in text and "+--> r1" in text
    assert len({*ASCII.joints.values(), ASCII.down, ASCII.across, ASCII.tied_down, ASCII.tied_across}) == 7


def test_narrow_terminals_lose_the_least_important(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from rich.console import Console

    plan = make("x", [replace(r, name=r.name) for r in mlp(3)], [("fc3", "fc2"), ("fc3", "fc1")])
    for width, kept in ((80, True), (24, False)):
        made = Console(width=width, force_terminal=True, no_color=True, highlight=False)
        monkeypatch.setattr("reclra_compile.cli.report.console", lambda stderr=False, made=made: made)
        print_graph(plan, None)
        text = capsys.readouterr().out
        assert ("512" in text) == kept and "fc1" in text and "wave 1" in text
        assert all(len(line) <= width for line in text.splitlines())


def on_terminal(plan: Plan, width: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> list[str]:
    from rich.cells import cell_len
    from rich.console import Console

    made = Console(width=width, force_terminal=True, no_color=True, highlight=False)
    monkeypatch.setattr("reclra_compile.cli.report.console", lambda stderr=False: made)
    print_graph(plan, None)
    lines: list[str] = capsys.readouterr().out.splitlines()
    assert all(cell_len(line) <= width for line in lines)
    return lines


@pytest.mark.parametrize("width", [40, 48, 60])
def test_narrow_terminals_tell_of_every_error(width: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    names = [f"h.{k}.attn.c_proj" for k in range(9)]
    regions = [region(n, f"z.{names[k - 1]}" if k else "x0") for k, n in enumerate(names)]
    links = [(names[8], n) for n in names[4:8]] + [(names[k + 1], names[k]) for k in range(4)]
    links += [(names[7], names[k]) for k in range(3)] + [(names[6], names[3])]
    lines = on_terminal(make("x", regions, links), width, monkeypatch, capsys)
    rows = {n: next(line for line in lines if f"h.{n[2]}" in line and "wave" in line) for n in names}
    assert all("▶" in row for row in rows.values()), "each of them hears"
    assert not any("·" in line for line in lines) and not any(line.endswith("reads") for line in lines)
    if width == 40:
        assert any("← h" in row for row in rows.values())


def test_names_take_the_room_that_they_need(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    lines = on_terminal(chain(3), 30, monkeypatch, capsys)
    assert "╰──▶ r2    wave 0" in lines, "as wide as loss, the longest"
    regions = [region("層の名前" * 4, "x0"), region("a\n\x1b[2Jb", "z." + "層の名前" * 4)]
    lines = on_terminal(make("x\ny", regions, [(regions[1].name, regions[0].name)]), 44, monkeypatch, capsys)
    assert "mlp × x y: 2 regions" in lines[0] and not any("\x1b[2J" in line for line in lines)
    assert any("a  [2Jb" in line for line in lines) and any("層の" in line and "wave 1" in line for line in lines)


def test_a_model_is_drawn_in_each_format(tmp_path: Path) -> None:
    plan = saved(chain(3), tmp_path)
    for suffix in (".html", ".svg", ".dot", ".mmd"):
        result = run(plan, "--out", tmp_path / f"x{suffix}")
        assert result.exit_code == 0 and "picture written to" in result.stdout and "╭" not in result.stdout
        assert "r1" in (tmp_path / f"x{suffix}").read_text(encoding="utf-8")
    result = run(ROOT / "examples" / "mlp_digits.py", "-w", "depth1", "--out", tmp_path / "m.dot", "--ascii", "--json")
    told = json.loads(result.stdout)
    assert (told["plan"], told["pathways"], told["picture"]) == ("depth1", 5, str(tmp_path / "m.dot"))


def test_what_mermaid_refuses_is_said(tmp_path: Path) -> None:
    large = saved(chain(300), tmp_path)
    assert "too large for Mermaid" in run(large, "--out", tmp_path / "x.mmd").stdout
    assert "too large" not in run(large, "--out", tmp_path / "x.dot").stdout


def test_two_wirings_and_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = ROOT / "examples" / "mlp_digits.py"
    result = run(model, "-w", "depth1", "--beside", "backprop", "--devices", "cpu:2", "--simulate", "--json")
    told = json.loads(result.stdout)
    assert (told["plan"], told["beside"], told["picture"]) == ("depth1", "backprop", "MLP-depth1.html")
    assert told["predicted_us"] > 0 and (tmp_path / "MLP-depth1.html").exists()


def test_ascii_of_two_wirings_is_two_drawings_and_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(chain(3), tmp_path, "a.plan")
    saved(replace(chain(3), name="other"), tmp_path, "b.plan")
    text = run("a.plan", "--beside", "b.plan", "--ascii").stdout
    assert "Chain × synthetic" in text and "Chain × other" in text and text.count("○ loss") == 2
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize("there", [True, False])
def test_open_says_where_there_is_no_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    opened: list[str] = []

    def browse(url: str) -> bool:
        opened.append(url)
        return there

    monkeypatch.setattr(webbrowser, "open", browse)
    monkeypatch.chdir(tmp_path)
    result = run(saved(chain(3), tmp_path), "--open")
    assert result.exit_code == 0
    assert opened == [(tmp_path / "Chain-synthetic.html").as_uri()]
    assert ("there is no browser" in result.stdout) != there


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["no.plan"], "M001"),
        (["net.plan", "-w", "depth1"], "P012"),
        (["net.plan", "--beside", "depth1"], "P012"),
        (["net.plan", "--out", "x.gif"], "V002"),
        (["net.plan", "--out", "x.svg", "--beside", "net.plan"], "V007"),
        (["net.plan", "--simulate"], "S003"),
        (["net.plan", "--trace", "none.json"], "V005"),
        (["bad.plan"], "P001"),
        (["net.plan", "--beside", "other.plan", "--ascii"], "V008"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: str) -> None:
    monkeypatch.chdir(tmp_path)
    saved(chain(3), tmp_path)
    saved(chain(5), tmp_path, "other.plan")
    (tmp_path / "bad.plan").write_text("nothing")
    result = run(*words, "--json")
    assert result.exit_code == 2
    assert [e["code"] for e in json.loads(result.stdout)["errors"]] == [code]
    assert not list(tmp_path.glob("*.html"))


def test_a_plan_is_drawn_for_other_devices(tmp_path: Path) -> None:
    plan = saved(verify(chain(6)), tmp_path)
    result = run(plan, "--devices", "cpu:2", "--microbatches", "2")
    assert result.exit_code == 0 and "cpu:1" in result.stdout
    again = Plan.parse(plan.read_text(encoding="utf-8")).on(Machine(devices="cpu:2", microbatches=2))
    told = json.loads(run(plan, "--devices", "cpu:2", "--microbatches", "2", "--simulate", "--out",
                          tmp_path / "x.html", "--json").stdout)  # fmt: skip
    assert told["predicted_us"] == pytest.approx(again.simulate().makespan_us)
