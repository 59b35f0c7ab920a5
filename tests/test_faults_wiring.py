"""Every broken wiring under faults/wiring gives exactly the report beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reclra_compile.errors import WiringError
from reclra_compile.spec.load import CODES, load_wiring

FOLDER = Path(__file__).parent / "faults" / "wiring"
FILES = sorted(FOLDER.glob("*.yaml"))


def report(path: Path) -> str:
    """The faults of a file, with its name in place of its path."""
    with pytest.raises(WiringError) as caught:
        load_wiring(path)
    return str(caught.value).replace(f"{path.parent}/", "") + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_report(path: Path, request: pytest.FixtureRequest) -> None:
    expected = path.with_suffix(".expected")
    text = report(path)
    if request.config.getoption("--update-golden", default=False):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")


def test_every_code_has_a_report() -> None:
    text = "".join(path.with_suffix(".expected").read_text(encoding="utf-8") for path in FILES)
    assert [code for code in CODES if f"error[{code}]" not in text] == []


def test_no_report_is_left_over() -> None:
    assert {p.stem for p in FOLDER.glob("*.expected")} == {p.stem for p in FILES}
