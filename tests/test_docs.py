"""The documentation is true: its code runs, its wirings load, its commands parse, its links resolve.

Blocks are checked by their language. One with a title is a file of that name, which later blocks of the page use:
  python   runs; a `text` block right after it is what it prints
  yaml     loads as a wiring where it has a `version:`
  console  each `$ reclra-compile …` runs, and prints the lines shown (… stands for others)
  bash     each `reclra-compile …` parses; it runs as well where that is quick
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from reclra_compile.cli.main import main
from reclra_compile.spec.load import CODES, load_wiring, shipped
from reclra_compile.spec.schema import Wiring, keys_of, part_at

ROOT = Path(__file__).resolve().parent.parent
FILES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
PAGES = [str(f.relative_to(ROOT)) for f in FILES]
QUICK = ("compile", "wirings", "check", "schema")
LONG = ("docs/howto-model.md",)  # torch.export, and a model of transformers
#: languages whose blocks no test runs, and why
UNCHECKED = {
    "text": "what a program prints (checked after a python block), folders, other programs' commands, signatures",
    "toml": "a part of another package's pyproject.toml; tests/test_registry.py has such a package",
}
FAULTY = "version: 1\ntarget: {rule: lra, betta: 0.1}\npathways:\n  - {from: output, to: {every: 2}, kernel: dens}\n"


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, the line it begins at, and the file that it is, if any."""

    language: str
    text: str
    line: int
    file: str = ""


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r'^```(\w*)(?: title="([^"\n]*)")?\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[3], text[: m.start()].count("\n") + 2, m[2] or "") for m in found]


def with_blocks(*languages: str) -> list[str]:
    """Pages that have such blocks."""
    return [p for p in PAGES if any(b.language in languages and not b.file for b in blocks(p))]


def sometimes(pages: list[str]) -> list[Any]:
    """The pages, those whose code takes long marked slow."""
    return [pytest.param(p, marks=pytest.mark.slow) if p in LONG else p for p in pages]


def in_order(page: str, folder: Path, language: str) -> Iterator[Block]:
    """The page's blocks of one language, with the files that the page has named above each in the folder."""
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
            sys.modules.pop(block.file.removesuffix(".py"), None)  # a page's files are modules of that page alone
        elif block.language == language:
            yield block


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the pages name."""
    for name in ("examples", "wiring"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "examples" / "mlp_digits.py", tmp_path / "model.py")
    shutil.copy(ROOT / "wiring" / "depth2.yaml", tmp_path / "my.yaml")
    (tmp_path / "faulty.yaml").write_text(FAULTY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", sometimes(with_blocks("python")))
@pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")  # torch's own, where an export is run
def test_python_blocks_run_and_print_what_is_shown(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "docs"}
    monkeypatch.syspath_prepend(folder)
    found = blocks(page)
    following = dict(zip(found, [*found[1:], Block("", "", 0)], strict=True))
    for block in in_order(page, folder, "python"):
        after = following[block]
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + block.text, str(ROOT / page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        if printed.getvalue():
            assert after.language == "text", f"{page}:{block.line} prints, but no text block follows"
            assert printed.getvalue() == after.text, f"{page}:{after.line}"


@pytest.mark.parametrize("page", with_blocks("yaml"))
def test_wirings_load(page: str) -> None:
    for block in (b for b in blocks(page) if b.language == "yaml" and not b.file):  # files are read by commands
        data = yaml.safe_load(block.text)
        if "version" in data:
            load_wiring(data)


@pytest.mark.parametrize("page", with_blocks("json"))
def test_json_blocks_are_json(page: str) -> None:
    for block in (b for b in blocks(page) if b.language == "json"):
        json.loads(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_language_that_is_checked(page: str) -> None:
    for block in blocks(page):
        known = {"python", "yaml", "json", "bash", "console", *UNCHECKED}
        assert block.language in known, f"{page}:{block.line}: no test checks '{block.language}' blocks"
        if block.file:
            others = "".join(b.text for b in blocks(page) if b.file != block.file)
            assert block.file.removesuffix(".py") in others, f"{page}:{block.line}: nothing uses {block.file}"


@pytest.mark.parametrize("page", with_blocks("bash"))
def test_make_targets_and_scripts_exist(page: str) -> None:
    text = "\n".join(b.text for b in blocks(page) if b.language == "bash")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"^make ([\w-]+)", text, re.MULTILINE)) <= targets
    scripts = re.findall(r"(?:^|\s)((?:benchmarks|examples)/[\w/]+\.py)", text)
    assert not [s for s in scripts if not (ROOT / s).is_file()]


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """The command lines of a block, each with the lines of output shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if block.language == "bash" or line.startswith("$ "):
            found.append((line.removeprefix("$ ").strip(), []))
        else:
            found[-1][1].append(line)
    return [(c, shown) for c, shown in found if c.startswith("reclra-compile ")]


def words(command: str) -> list[str]:
    """The arguments of a command line, without its redirection and comment."""
    return shlex.split(command.partition(" > ")[0], comments=True)[1:]


def parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the command that would run; fails where click refuses the line."""
    called: list[str] = []
    with monkeypatch.context() as patch:
        for name, command in main.commands.items():
            patch.setattr(command, "callback", lambda name=name, **_: called.append(name))
        result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return called[0]


def run(arguments: list[str]) -> Result:
    """The command's result; anything but a deliberate exit is a failure."""
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def quick(name: str, arguments: list[str]) -> bool:
    """True where a command may run in a test: nothing is trained for long, and its files are there."""
    files = [a.partition(":")[0] for a in arguments if a.partition(":")[0].endswith((".py", ".yaml"))]
    here = all(os.path.exists(f) for f in files)
    return here and (name in QUICK or (" --epochs 1 " in f" {shlex.join(arguments)} " and "--data" not in arguments))


@pytest.mark.parametrize("page", with_blocks("bash"))
def test_command_lines_parse_and_quick_ones_run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: set[tuple[str, ...]] = set()
    for block in in_order(page, folder, "bash"):
        for command, _ in commands(block):
            arguments = words(command)
            name = parsed(arguments, monkeypatch)
            if tuple(arguments) not in done and quick(name, arguments):
                result = run(arguments)
                assert result.exit_code == 0, f"{page}: {command}\n{result.output}"
            done.add(tuple(arguments))


@pytest.mark.parametrize("page", with_blocks("console"))
def test_console_blocks_show_what_is_printed(page: str, folder: Path) -> None:
    for block in in_order(page, folder, "console"):
        for command, shown in commands(block):
            result = run(words(command))
            assert result.exit_code == (2 if any(s.startswith("error[") for s in shown) else 0), result.output
            printed = [" ".join(line.split()) for line in result.output.splitlines()]
            for line in (" ".join(s.split()) for s in shown):
                wanted = line.removesuffix("…").strip()
                rest = next((k for k, p in enumerate(printed) if p.startswith(wanted)), None)
                assert rest is not None, f"{page}:{block.line}: no line\n{line}\nin what is printed:\n{result.output}"
                printed = printed[rest:] if not wanted else printed[rest + 1 :]


def prose(page: Path) -> str:
    """A page's text without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_resolve(page: str) -> None:
    file = ROOT / page
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(file)):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page} links to {link}"


def test_every_shipped_wiring_is_in_the_readme() -> None:
    rows = re.findall(r"^\| `(\w+)`", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(shipped())


def test_every_command_and_option_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in main.commands.items():
        assert f"\n## {name}\n" in text
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for option in (p for p in command.params if isinstance(p, click.Option)):
            assert all(f"`{o}`" in section or f"`{o} " in section for o in option.opts), (name, option.opts)


def test_every_wiring_key_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "wiring.md").read_text(encoding="utf-8")
    parts = [Wiring, *(part_at((section,)) for section in keys_of(Wiring))]
    assert not [key for part in parts for key in keys_of(part) if not re.search(rf"`[^`\n]*\b{key}\b[^`\n]*`", text)]


def test_every_error_code_is_listed_once() -> None:
    sources = "".join(f.read_text(encoding="utf-8") for f in (ROOT / "reclra_compile").rglob("*.py"))
    codes = set(re.findall(r'"([A-Z]\d{3})"', sources)) | set(CODES)
    pages = "".join(p.read_text(encoding="utf-8") for p in sorted((ROOT / "docs").glob("*.md")))
    assert sorted(re.findall(r"^\| ([A-Z]\d{3}) \|", pages, re.MULTILINE)) == sorted(codes)


def test_dotted_names_stand_for_code_that_exists() -> None:
    text = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    packages = {p.parent.name for p in (ROOT / "reclra_compile").glob("*/__init__.py")}
    names = [n for n in re.findall(r"`(\w+(?:\.\w+)+)`", text) if n.partition(".")[0] in packages]
    assert len(names) > 20
    for name in names:
        value: object = importlib.import_module(f"reclra_compile.{name.partition('.')[0]}")
        for part in name.split(".")[1:]:
            if isinstance(value, ModuleType) and not hasattr(value, part):
                importlib.import_module(f"{value.__name__}.{part}")
            value = getattr(value, part)


def test_the_citation_file_has_what_the_format_asks_for() -> None:
    data = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert data["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(data)
    assert [a["family-names"] for a in data["preferred-citation"]["authors"]] == ["Ororbia", "Mali", "Kifer", "Giles"]
    assert {"type", "title", "authors"} <= set(data["preferred-citation"])
