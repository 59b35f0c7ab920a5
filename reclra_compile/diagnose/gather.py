"""A plan on one device that runs each batch as a whole: what a region hears is then seen at once."""

from __future__ import annotations

from dataclasses import replace

from reclra_compile.ir import Device, Placement, Plan, Schedule
from reclra_compile.schedule.comms import without_messages
from reclra_compile.schedule.order import frees, order
from reclra_compile.schedule.values import with_traffic


def gathered(plan: Plan) -> Plan:
    """`plan` without devices, microbatches and staleness; itself where it has none."""
    if len(plan.devices) == 1 and plan.schedule == Schedule():
        return plan
    tasks = with_traffic(order(without_messages(plan.tasks)), plan.regions, plan.targets, plan.pathways)
    placement = Placement(tuple((r.name, 0) for r in plan.regions))
    return replace(plan, tasks=frees(tasks), devices=(Device(),), placement=placement, schedule=Schedule())
