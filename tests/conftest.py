"""Options and fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from reclra_compile.rules.catalogue import TARGETS, UPDATES

ROOT = Path(__file__).resolve().parent.parent
pytest_plugins = ["browsing"]  # its fixtures


# Small tensors gain nothing from more threads, and on a shared machine lose much.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# Continuous integration repeats the same examples; a run by hand looks for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("hand", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "hand")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files from today's results")


@pytest.fixture
def data_dir() -> Path:
    """The folder with real data sets; skips where there is none."""
    folder = os.environ.get("RECLRA_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: set RECLRA_DATA to a folder with mnist.npz")
    return Path(folder)


@pytest.fixture(autouse=True)
def _own_rules_end_with_their_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that a test, an example or a page registers are unknown to the next one."""
    for registry in (TARGETS, UPDATES):
        monkeypatch.setattr(registry, "_rules", dict(registry.known))
