"""Plans are made, read, checked, costed and drawn without torch."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT

MODULES = (
    "ir", "text", "verify", "errors", "spec.load", "spec.resolve", "spec.advice", "schedule.lower", "schedule.order",
    "schedule.settling", "placement.cost", "placement.assign",
    "placement.fit", "rules.catalogue", "rules.registry", "rules.shipped", "view.draw", "cli.main",
)  # fmt: skip


def test_planning_code_imports_no_torch() -> None:
    names = ", ".join(f"reclra_compile.{m}" for m in MODULES)
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
