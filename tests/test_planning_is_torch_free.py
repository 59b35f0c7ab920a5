"""Plans are made, read, checked, costed and drawn without torch."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT

MODULES = (
    "ir", "text", "verify", "errors", "arrange", "machine", "spec.load", "spec.resolve", "spec.advice",
    "rules.catalogue", "rules.registry", "rules.shipped", "view.draw", "view.ascii", "view.notebook",
    "cli.main", "cli.graph_view", "starter.choose", "starter.write", "explain.entries",
)  # fmt: skip
PACKAGES = ("schedule", "placement", "simulate", "auto", "cost")  #: all of each


def modules() -> list[str]:
    """Names below `reclra_compile`."""
    folders = [ROOT / "reclra_compile" / p for p in PACKAGES]
    found = [f"{folder.name}.{file.stem}" for folder in folders for file in sorted(folder.glob("[a-z]*.py"))]
    return [*MODULES, *found]


def test_planning_code_imports_no_torch() -> None:
    names = ", ".join(f"reclra_compile.{m}" for m in modules())
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
