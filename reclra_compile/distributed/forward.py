"""The part of a plan that leads to the model's output."""

from __future__ import annotations

from reclra_compile.ir import Plan


def forward_tasks(plan: Plan) -> frozenset[int]:
    """The F tasks, and the messages between them, that the loss's task follows from: by their places in the plan."""
    writer = {v: i for i, t in enumerate(plan.tasks) for v in t.writes}
    loss = next(t for t in plan.tasks if t.kind == "L")
    found: set[int] = set()
    stack = [writer[v] for v in loss.reads if v in writer]
    while stack:
        i = stack.pop()
        if i not in found:
            found.add(i)
            stack += [writer[v] for v in plan.tasks[i].reads if v in writer]
    return frozenset(found)
