"""Which of torch's devices the ranks of a plan compute on."""

from __future__ import annotations

from reclra_compile.errors import Fault, RankError
from reclra_compile.ir import Plan
from reclra_compile.placement.profiles import PEAKS


def device_type(plan: Plan, given: str | None = None) -> str:
    """The type of device that is asked for, or else that of the plan's devices: "cuda" for GPUs, "cpu" for others."""
    if given:
        return given.partition(":")[0]
    gpus = set(PEAKS) - {"cpu"}
    return "cuda" if any(d.kind in gpus or d.name.startswith("cuda") for d in plan.devices) else "cpu"


def check_devices(kind: str, ranks: int) -> None:
    """Raise RankError (R103) where this host has not a device for each of its ranks."""
    import torch

    if kind != "cuda":
        return
    there = torch.cuda.device_count()
    if there < ranks:
        raise RankError(
            Fault("R103", f"{ranks} processes need as many GPUs; this host has {there or 'none'}",
                  fix="use --device cpu, or run the plan in this process with --one-process")
        )
