"""Which task of the plan an operation of a step graph belongs to."""

from __future__ import annotations

from typing import NamedTuple

from reclra_compile.ir import Task

WORDS = {
    "B": "cut into microbatches", "L": "loss and its gradient", "D": "displacement", "T": "target and error",
    "U": "weight update", "V": "synapse update", "M": "mirror mode", "S": "settling",
}  # fmt: skip


class Part(NamedTuple):
    """One task for one microbatch: the task's kind and subject, its wave (-1: the forward pass), and the microbatch."""

    kind: str
    subject: str
    wave: int
    microbatch: int = 0

    @classmethod
    def of(cls, task: Task, microbatch: int) -> Part:
        """The part of a plan's task."""
        return cls(task.kind, task.subject, task.wave, microbatch)

    def title(self, several: bool) -> str:
        """One line for people; with the microbatch where there are several."""
        when = "forward" if self.wave < 0 else f"wave {self.wave}"
        which = f", microbatch {self.microbatch}" if several and self.kind != "B" else ""
        what = f" ({WORDS[self.kind]})" if self.kind in WORDS else ""
        return f"{when}: {self.kind} {self.subject}{which}{what}"
