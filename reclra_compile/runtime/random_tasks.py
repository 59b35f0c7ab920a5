"""Random numbers of tasks where several devices or microbatches run: each draws from a stream of its own.

In whatever order devices come to their tasks, a region then draws the same masks. The stream follows from one draw of
torch's generator for each step, the task's name and the microbatch. One device that runs the batch as a whole draws
from torch's generator itself, as the model alone would.
"""

from __future__ import annotations

import hashlib

from reclra_compile.ir import Task
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.randomness import is_random, seeded
from reclra_compile.runtime.state import Slots
from reclra_compile.runtime.tracing import is_traced
from reclra_compile.schedule.settling import settles


def draws(task: Task, linked: Linked) -> bool:
    """True for tasks that may draw random numbers, in their own stream where devices or microbatches are several."""
    if linked.alone or settles(linked.plan.targets):  # states that settle have streams already
        return False
    if task.kind == "V":
        return linked.pathways[task.subject].update == "autoencoding"
    return task.kind == "M" or (task.kind == "F" and is_random(linked.modules[task.subject]))


def drawing_apart(run: Step, task: Task, linked: Linked) -> Step:
    """`run` with random numbers that depend on the step, the task and the microbatch alone."""
    if not draws(task, linked):
        return run

    def apart(v: Slots) -> None:
        if is_traced():
            run(v)
            return
        name = f"{v[0].seed}/{task.id}/{v[0].number}"
        with seeded(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")):
            run(v)

    return apart
