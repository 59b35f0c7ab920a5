"""reclra-compile: a model and a wiring go in; a schedule that any number of devices can execute comes out.

    import reclra_compile as rc
    program = rc.compile(model, example_inputs, wiring="depth2")
    optimizer = torch.optim.Adam(program.parameters(), lr=1e-3)
    for x, y in loader:
        optimizer.zero_grad()
        loss = program.step(x, y)
        optimizer.step()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reclra_compile.compiler import compile, plan_for, threaded
    from reclra_compile.distributed.mesh import Mesh, connect
    from reclra_compile.distributed.program import RankProgram
    from reclra_compile.distributed.threads import ThreadedProgram
    from reclra_compile.errors import (
        DataError,
        Fault,
        ModelError,
        Notice,
        PlacementError,
        PlanError,
        RankError,
        ReclraError,
        TrainingError,
        UserError,
        WiringError,
    )
    from reclra_compile.integrate.attach import attach, detach
    from reclra_compile.ir import Device, Pathway, Plan, Region, Schedule, Target, Task
    from reclra_compile.machine import Machine
    from reclra_compile.rules.registry import register_target, register_update
    from reclra_compile.runtime.discrepancy import Discrepancy
    from reclra_compile.runtime.program import Program
    from reclra_compile.spec.load import load_wiring, shipped
    from reclra_compile.spec.schema import Wiring
    from reclra_compile.view.draw import write_picture

__version__ = "0.1.0"

#: public names by the module that defines them; imported on first use, so that `--help` needs no torch
_EXPORTS = {
    "reclra_compile.compiler": ("compile", "plan_for", "threaded"),
    "reclra_compile.distributed.mesh": ("Mesh", "connect"),
    "reclra_compile.distributed.program": ("RankProgram",),
    "reclra_compile.distributed.threads": ("ThreadedProgram",),
    "reclra_compile.errors": (
        "DataError", "Fault", "ModelError", "Notice", "PlacementError", "PlanError", "RankError", "ReclraError",
        "TrainingError", "UserError", "WiringError",
    ),
    "reclra_compile.integrate.attach": ("attach", "detach"),
    "reclra_compile.ir": ("Device", "Pathway", "Plan", "Region", "Schedule", "Target", "Task"),
    "reclra_compile.machine": ("Machine",),
    "reclra_compile.rules.registry": ("register_target", "register_update"),
    "reclra_compile.runtime.discrepancy": ("Discrepancy",),
    "reclra_compile.runtime.program": ("Program",),
    "reclra_compile.spec.load": ("load_wiring", "shipped"),
    "reclra_compile.spec.schema": ("Wiring",),
    "reclra_compile.view.draw": ("write_picture",),
}  # fmt: skip
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "DataError",
    "Device",
    "Discrepancy",
    "Fault",
    "Machine",
    "Mesh",
    "ModelError",
    "Notice",
    "Pathway",
    "Plan",
    "PlacementError",
    "PlanError",
    "Program",
    "RankError",
    "RankProgram",
    "ReclraError",
    "Region",
    "Schedule",
    "Target",
    "Task",
    "ThreadedProgram",
    "TrainingError",
    "UserError",
    "Wiring",
    "WiringError",
    "__version__",
    "attach",
    "compile",
    "connect",
    "detach",
    "load_wiring",
    "plan_for",
    "register_target",
    "register_update",
    "shipped",
    "threaded",
    "write_picture",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'reclra_compile' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
