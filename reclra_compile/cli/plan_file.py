"""Read a plan from its file."""

from __future__ import annotations

from pathlib import Path

from reclra_compile.errors import Fault, Location, PlanError
from reclra_compile.ir import Plan


def read_plan(file: str) -> Plan:
    """The plan that a file holds; raises PlanError (P013, or what is wrong with its lines)."""
    try:
        return Plan.parse(Path(file).read_text(encoding="utf-8"), file)
    except UnicodeDecodeError as error:
        raise PlanError(
            Fault("P013", "this is not a plan: it is not text", Location(file), "make one with --out PLAN")
        ) from error
    except OSError as error:
        raise PlanError(
            Fault("P013", f"the plan cannot be read: {error.strerror or error}", Location(file),
                  "write one with `reclra-compile MODEL --out PLAN`")
        ) from error
