"""Every code is explained, the docs and the explanations agree, and `explain` finds what is asked for."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from conftest import ROOT
from models import build
from rich.console import Console
from torch import Tensor, nn

from reclra_compile.cli import report
from reclra_compile.cli.main import main
from reclra_compile.compiler import plan_for
from reclra_compile.errors import Notice, WiringError
from reclra_compile.explain.entries import FOLDER, ORDER, Entry, groups, parse
from reclra_compile.spec.load import CODES, load_text

ENTRIES = {e.code: e for g in groups() for e in g.entries}
ROW = re.compile(r"^\| ([A-Z]\d{3}) \| (.*?) \|(?: .* \|)?$", re.MULTILINE)
HEADING = re.compile(r"^## ([A-Z]\d{3}): (.*)$", re.MULTILINE)
PAGE = "# Q: quips\n\nAbout.\n\nPage: cli.md\n\n## Q001: a `title`: with colons\n\nWhy\nso.\n\n"


def run(*arguments: str) -> Result:
    """A command in this process; an exception other than an exit is a failure."""
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def sources() -> set[str]:
    """The codes that the package's own sources name."""
    text = "".join(f.read_text(encoding="utf-8") for f in (ROOT / "reclra_compile").rglob("*.py"))
    return set(re.findall(r'"([A-Z]\d{3})"', text)) | set(CODES)


def rows() -> dict[str, str]:
    """Code → meaning, of the tables in docs/."""
    pages = (p.read_text(encoding="utf-8") for p in sorted((ROOT / "docs").glob("*.md")))
    return {m[1]: m[2] for page in pages for m in ROW.finditer(page)}


def test_every_code_has_an_explanation_and_every_explanation_a_code() -> None:
    missing, idle = sorted(sources() - set(ENTRIES)), sorted(set(ENTRIES) - sources())
    assert not missing, f"no entry in reclra_compile/explain/LETTER.md for {', '.join(missing)}"
    assert not idle, f"explained, but never used: {', '.join(idle)}"


def test_titles_are_what_the_tables_of_the_docs_say(request: pytest.FixtureRequest) -> None:
    """`--update-golden` takes them over from the tables."""
    said = rows()
    if request.config.getoption("--update-golden", default=False):
        for file in FOLDER.glob("*.md"):
            old = file.read_text(encoding="utf-8")
            new = HEADING.sub(lambda m: f"## {m[1]}: {said.get(m[1], m[2])}", old)
            if new != old:
                file.write_text(new, encoding="utf-8")
        return
    other = [f"{c}: {e.title!r} is {said.get(c)!r} in docs/" for c, e in ENTRIES.items() if e.title != said.get(c)]
    assert not other, "\n".join(other)


def test_entries_say_more_than_their_titles_and_lead_to_pages_that_exist() -> None:
    for entry in ENTRIES.values():
        assert len(entry.cause.split()) > 5 and len(entry.fix) > 10, entry.code
        assert entry.cause.rstrip(".").lower() != entry.title.lower(), entry.code
        page, _, anchor = entry.page.partition("#")
        text = re.sub(r"^```.*?^```$", "", (ROOT / "docs" / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        found = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
        assert not anchor or anchor in found, f"{entry.code}: docs/{entry.page}"


def test_groups_say_what_they_are_about() -> None:
    assert all(g.about.endswith(".") and g.title and g.entries for g in groups())
    assert "".join(g.letter for g in groups()) == ORDER


def test_examples_that_are_messages_carry_the_code() -> None:
    for entry in ENTRIES.values():
        named = re.findall(r"(?:error|warning)\[(\w+)\]", entry.example)
        assert set(named) <= {entry.code}, entry.code


def test_codes_in_any_case_and_as_they_are_printed() -> None:
    for word in ("W003", "w003", "error[W003]", "[w003]"):
        result = run("explain", word, "--json")
        assert json.loads(result.stdout) == [asdict(ENTRIES["W003"])]
    both = run("explain", "t010", "W003")
    assert both.exit_code == 0
    assert both.stdout.index("T010  ") < both.stdout.index("W003  ")
    words = " ".join(both.stdout.split())
    assert all(text in words for text in (ENTRIES["T010"].cause, f"docs: docs/{ENTRIES['T010'].page}"))
    assert "    error[W003] my.yaml:2:21: unknown key 'betta' in 'target'\n      fix: did you" in both.stdout


def test_a_letter_explains_its_group() -> None:
    found = json.loads(run("explain", "g", "g001", "--json").stdout)
    assert [e["code"] for e in found] == sorted(c for c in ENTRIES if c[0] == "G")


def test_how_codes_begin_is_enough() -> None:
    found = json.loads(run("explain", "w11", "--json").stdout)
    assert [e["code"] for e in found] == sorted(c for c in ENTRIES if c.startswith("W11")) and len(found) > 1


def test_without_a_code_all_are_listed() -> None:
    listed = re.findall(r"^  ([A-Z]\d{3})  (.*)$", run("explain").stdout, re.MULTILINE)
    assert dict(listed) == {c: e.title for c, e in ENTRIES.items()}
    assert [g["letter"] for g in json.loads(run("explain", "--json").stdout)] == [g.letter for g in groups()]


def test_unknown_codes_are_answered_with_the_nearest() -> None:
    result = run("explain", "W0003", "W003", "hello")
    assert result.exit_code == 2 and result.stdout == ""
    assert "error[I002]: there is no code 'W0003'\n  fix: did you mean 'W003'?" in result.stderr
    assert "no code 'hello'" in result.stderr
    assert [e["code"] for e in json.loads(run("explain", "x9", "--json").stdout)["errors"]] == ["I002"]


def test_pages_are_read_as_they_are_described() -> None:
    group = parse(PAGE + "```yaml\na: 1\n  b: 2\n```\n\nFix: do\nthis.\n\nSee: rules.md#x\n")
    entry = Entry("Q001", "a `title`: with colons", "Why so.", "a: 1\n  b: 2", "do this.", "rules.md#x")
    assert (group.letter, group.title, group.about, group.entries) == ("Q", "quips", "About.", (entry,))
    assert parse(PAGE + "Fix: this.\n").entries[0] == Entry("Q001", entry.title, "Why so.", "", "this.", "cli.md")
    with pytest.raises(ValueError, match="Q001 has no cause or no `Fix:`"):
        parse(PAGE)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_told_where_more_is_said(terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    out = Console(force_terminal=terminal, color_system=None, highlight=False, width=80)
    report.hint(out, [Notice("", c).code for c in ("W003", "", "W003", "T010", "W004", "W005")])
    report.hint(out, [""])
    assert capsys.readouterr().out == ("reclra-compile explain W003 T010 W004 says more\n" if terminal else "")


def yaml_examples() -> dict[str, str]:
    """Code → the YAML that its explanation gives as what raises it."""
    text = (FOLDER / "W.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^## (W\d{3}):[^\n]*\n(?:(?!^## ).)*?^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("code", yaml_examples())
def test_examples_of_wirings_raise_their_code(code: str) -> None:
    text = yaml_examples()[code]
    module, x = (Recurrent(), torch.zeros(2, 3, 4)) if code == "W033" else build("mlp")
    try:
        part = yaml.safe_load(text)
        part = {"pathways": [{"from": "output", **part}]} if "to" in part else part
        whole = {"version": 1, **({} if "auto" in part else {"pathways": [{"from": "output", "to": "all"}]}), **part}
        found = {w.code for w in plan_for(module, x, whole).warnings}
    except yaml.YAMLError:
        with pytest.raises(WiringError) as error:
            load_text(text, "my.yaml")
        found = {f.code for f in error.value.faults}
    except WiringError as error:
        found = {f.code for f in error.faults}
    assert code in found, found


class Recurrent(nn.Module):
    """A layer, an LSTM that reads it, and one that reads its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lstm, self.head = nn.Linear(4, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of a sequence."""
        return self.head(self.lstm(self.first(x))[0][:, -1])
