"""Every broken model under faults/model gives exactly the report beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reclra_compile.compiler import plan_for
from reclra_compile.errors import ModelError
from reclra_compile.frontend.load_model import CODES, load_model

FOLDER = Path(__file__).parent / "faults" / "model"
HELPERS = {"neighbour"}
FILES = sorted(p for p in FOLDER.glob("*.py") if p.stem not in HELPERS)
COMMENT = "# argument: "


def argument(path: Path) -> str:
    """What stands on the command line: the file, or what its first line says."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix(COMMENT) if first.startswith(COMMENT) else path.name


def compile_(reference: str) -> None:
    """What the command line does with a model."""
    loaded = load_model(reference)
    with loaded.blamed():
        plan_for(loaded.model, loaded.inputs)


def report(path: Path) -> str:
    """The faults of a model, as seen from its folder."""
    with pytest.raises(ModelError) as caught:
        compile_(argument(path))
    return str(caught.value).replace(f"{FOLDER}/", "") + "\n"


@pytest.fixture(autouse=True)
def _in_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_report(path: Path, request: pytest.FixtureRequest) -> None:
    expected = path.with_suffix(".expected")
    text = report(path)
    if request.config.getoption("--update-golden", default=False):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_report_names_a_place_and_a_fix(path: Path) -> None:
    text = path.with_suffix(".expected").read_text(encoding="utf-8")
    assert "\n  fix: " in text or "error[M201]" in text
    assert "error[M001]" in text or ".py" in text.partition("`")[0]


def test_every_code_has_a_report() -> None:
    text = "".join(path.with_suffix(".expected").read_text(encoding="utf-8") for path in FILES)
    assert [code for code in CODES if f"error[{code}]" not in text] == []


def test_no_report_is_left_over() -> None:
    assert {p.stem for p in FOLDER.glob("*.expected")} == {p.stem for p in FILES}
