"""A plan for other devices, microbatches or another batch than it was made for, without the model."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from reclra_compile.arrange import arrange
from reclra_compile.cost.lookup import priced
from reclra_compile.cost.measured import KIND, Time
from reclra_compile.errors import CostError, Fault, PlanError, UserError
from reclra_compile.ir import Plan, Region
from reclra_compile.machine import Machine
from reclra_compile.placement.times import task_us


def retargeted(plan: Plan, machine: Machine, batch: int | None = None) -> Plan:
    """`plan` as it is where nothing is asked for, and otherwise arranged anew; what is not asked for stays.

    Raises PlanError (S003) where there is no time to simulate, UserError (S004) for more microbatches than samples,
    PlacementError where it cannot be placed, and CostError where the times asked for were not measured.
    """
    if not machine.asked and batch in (None, plan.batch):
        if any(t.us for t in plan.tasks):
            return plan
        raise PlanError(
            Fault("S003", "the plan was made for no devices, so that its tasks have no times",
                  fix="say for which: --devices 4, or --devices h100:8")
        )  # fmt: skip
    said = plan.schedule
    samples, parts = batch or plan.batch, machine.microbatches or said.microbatches
    if parts > samples:
        raise UserError(
            Fault("S004", f"{samples} samples cannot be cut into {parts} microbatches",
                  fix=f"at most --microbatches {samples}, or at least --batch {parts}")
        )  # fmt: skip
    if samples != plan.batch:
        plan = rebatched(plan, samples)
    machine = replace(
        machine,
        microbatches=parts,
        staleness=said.staleness if machine.staleness is None else machine.staleness,
    )
    if machine.devices is None and machine.memory is None and not machine.profile:
        return arrange(plan, plan.devices, machine, _time(plan, machine))
    count = machine.devices if machine.devices is not None else len(plan.devices)
    plan, devices, time = priced(plan, replace(machine, devices=count), _dtype(plan))
    return arrange(plan, devices, machine, time)


def _time(plan: Plan, machine: Machine) -> Time:
    """What the plan's own devices take: as measured where they were, and the measured times are still there."""
    if any(d.kind == KIND for d in plan.devices):
        asked = replace(machine, devices=len(plan.devices), profile=KIND)
        with suppress(CostError):
            return priced(plan, asked, _dtype(plan))[2]
    return task_us


def _dtype(plan: Plan) -> str:
    """The precision that devices are rated for: that of the first floating-point input."""
    return next((d for _, _, d in plan.inputs if "float" in d), "float32")


def rebatched(plan: Plan, batch: int) -> Plan:
    """`plan` for batches of another size: FLOPs and bytes in proportion, but for the weights, which are read once."""
    ratio = batch / plan.batch

    def scaled(n: int) -> int:
        return round(n * ratio)

    def region(r: Region) -> Region:
        def moved(n: int) -> int:
            fixed = min(n, r.parameter_bytes)
            return fixed + scaled(n - fixed)

        return replace(
            r,
            forward_flops=scaled(r.forward_flops), weight_flops=scaled(r.weight_flops),
            input_flops=scaled(r.input_flops), saved_bytes=scaled(r.saved_bytes),
            forward_bytes=moved(r.forward_bytes), weight_bytes=moved(r.weight_bytes),
            input_bytes=moved(r.input_bytes), z_bytes=scaled(r.z_bytes),
            output_bytes=tuple(scaled(b) for b in r.output_bytes),
        )  # fmt: skip

    return replace(
        plan,
        batch=batch,
        regions=tuple(region(r) for r in plan.regions),
        pathways=tuple(replace(p, flops=scaled(p.flops), update_flops=scaled(p.update_flops)) for p in plan.pathways),
        tasks=tuple(replace(t, flops=scaled(t.flops), bytes=scaled(t.bytes)) for t in plan.tasks),
    )
