"""The Tab key: what completes where, through click's classes for each shell and once through bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner
from conftest import ROOT

from reclra_compile.cli.completion import BY_NAME, Completed
from reclra_compile.cli.completion_command import PROGRAM, VARIABLE
from reclra_compile.cli.main import main
from reclra_compile.cli.shells import SHELLS
from reclra_compile.explain.entries import groups
from reclra_compile.spec.load import shipped

MODEL = """
import torch

raise RuntimeError("completion runs nothing")
WIDTH = 3
class Net(torch.nn.Module): ...
class _Hidden(torch.nn.Module): ...
def build_model(): ...
def main() -> None: ...
small: torch.nn.Module = Net()
later: torch.nn.Module
deep = wide = Net()
example_inputs = data = loss_fn = None
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files that may and may not be meant."""
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "two words.py").write_text(MODEL)
    for name in ("my.yaml", "notes.txt", ".hidden.py", "models/big.py", "__pycache__/x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completed(line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that bash is offered for a line, each with a + where no blank is to follow."""
    monkeypatch.setenv("COMP_LINE", f"reclra-compile {line}")
    text = SHELLS["bash"](main, {}, PROGRAM, VARIABLE).complete()
    found = [item.partition(",") for item in text.splitlines() if item]
    return [value + "+" * (kind == "open") for kind, _, value in found]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("tr", ["train"]),
        ("n", ["net.py"]),
        ("mo", ["models/+"]),
        ("models/", ["models/big.py"]),
        ("nothing/", []),
        ("net.py:", ["Net", "build_model", "small", "deep", "wide"]),
        ("train net.py:d", ["deep"]),
        ("train broken.py:", []),
        ("net.py --wi", ["--wiring"]),
        ("--wi", ["--wiring"]),
        ("train net.py --resu", ["--resume"]),
        ("--version", ["--version"]),
        ("net.py -w depth2_", ["depth2_gap2", "depth2_paper"]),
        ("-w lra", ["lra_e"]),
        ("net.py --wiring=m", ["models/+", "my.yaml"]),
        ("train net.py -c backp", ["backprop"]),
        ("check my", ["my.yaml"]),
        ("check my.yaml n", ["net.py"]),
        ("train net.py --data m", ["mnist"]),
        ("search table1 --data cif", ["cifar10"]),
        ("reproduce table2", ["table2a", "table2b"]),
        ("net.py --device-profile h1", ["h100"]),
        ("net.py --granularity g", ["groups=+"]),
        ("train net.py --unreached f", ["freeze"]),
        ("simulate my.plan -c gpipe,1", ["gpipe,1f1b"]),
        ("explain w00", [f"W00{k}" for k in range(1, 10)]),
        ("explain W003 l", ["L001", "L002", "L003", "L004"]),
        ("completion z", ["zsh"]),
        ("report mo", ["models/+"]),
        ("report n", []),
        ("report models --data-dir mo", ["models/+"]),
        ("init net.py --for", ["--force"]),
        ("trian ", []),
        ("'two w", ["two words.py"]),
    ],
)
def test_what_completes_where(line: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(line, monkeypatch) == wanted


def test_an_empty_line_offers_commands_and_models(monkeypatch: pytest.MonkeyPatch) -> None:
    found = completed("", monkeypatch)
    assert {*main.commands, "net.py", "models/+"} <= set(found)
    assert not {"notes.txt", ".hidden.py", "__pycache__/+", "my.yaml"} & set(found)


def test_everything_that_exists_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(shipped()) <= set(completed("net.py -w ", monkeypatch))
    assert completed("explain ", monkeypatch) == [e.code for g in groups() for e in g.entries]


def test_parameters_of_every_command_complete_by_their_names() -> None:
    for name, command in main.commands.items():
        for param in command.params:
            if param.name in BY_NAME and not isinstance(param.type, click.Choice | click.Path | click.IntRange):
                assert isinstance(param.type, Completed), (name, param.name)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same_words(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SHELLS[shell](main, {}, PROGRAM, VARIABLE)
    assert type(made) is get_completion_class(shell)
    for words, typed, wanted in (
        ("reclra-compile tr", "tr", ["train"]), ("reclra-compile net.py:sm", "net.py:sm", ["net.py:small"]),
        ("reclra-compile mo", "mo", ["models/"]), ("reclra-compile explain w003", "w003", ["W003"]),
    ):  # fmt: skip
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", typed if shell == "fish" else str(len(words.split()) - 1))
        lines = made.complete().splitlines()
        found = lines[1::3] if shell == "zsh" else [line.split(",", 1)[1].split("\t")[0] for line in lines]
        assert found == wanted


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0 and not result.stderr
    assert f"{VARIABLE}={shell}_complete" in result.stdout and "%(" not in result.stdout
    assert result.stdout == SHELLS[shell](main, {}, PROGRAM, VARIABLE).source()
    assert CliRunner().invoke(main, ["completion", "csh"]).exit_code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_in_bash(folder: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = {PROGRAM!r}; "
    code += "from reclra_compile.cli.main import main; main()"
    (folder / "bin").mkdir()
    (folder / "bin" / PROGRAM).write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    (folder / "bin" / PROGRAM).chmod(0o755)
    script = 'eval "$(reclra-compile completion bash)"\n'
    for words in ("ne", "net.py:bu", "net.py --wiring=lr", "'two"):
        line = f"reclra-compile {words}"
        quoted = line.replace("'", "'\\''")
        script += (
            f"COMP_LINE='{quoted} and what follows' COMP_POINT={len(line)}\n"
            "_reclra_compile_completion reclra-compile\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
    script += "complete -p reclra-compile\n"
    environment = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines() == [
        "net.py", "build_model", "lra_e", "two\\ words.py", "complete -F _reclra_compile_completion reclra-compile",
    ], done.stderr  # fmt: skip
