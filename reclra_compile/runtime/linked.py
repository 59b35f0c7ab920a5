"""What the tasks of a program are built from: the plan, and the live parts its names stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from reclra_compile.ir import Pathway, Plan, Region, Target
from reclra_compile.rules.maps import Synapses
from reclra_compile.rules.targets import Elementwise
from reclra_compile.runtime.feedback import Mirror
from reclra_compile.runtime.loss import LossFunction
from reclra_compile.runtime.region import SplitRegion, WholeRegion
from reclra_compile.runtime.state import SlotMap, Slots
from reclra_compile.schedule.values import base

Step = Callable[[Slots], None]


@dataclass
class Linked:
    """Everything the builders need: the plan, and the live parts its names stand for.

    `biases` belong to read-outs and learned inverses; `modules` are those that a region's code runs;
    `mirrors` pairs each forward weight of a region with its feedback weight. `shared`: other processes run a part of
    the batch or of the plan, so that synapses and mirrors are those of this process alone.
    """

    plan: Plan
    loss_fn: LossFunction
    codes: dict[str, WholeRegion | SplitRegion]
    target_phi: dict[str, Elementwise | None]
    synapses: dict[str, Synapses]
    biases: dict[str, nn.Parameter]
    modules: dict[str, tuple[nn.Module, ...]] = field(default_factory=dict)
    mirrors: dict[str, list[Mirror]] = field(default_factory=dict)
    reduction: str | None = None
    track_discrepancy: bool = True
    shared: bool = False
    slot: SlotMap = field(init=False)
    network: Any = None

    def __post_init__(self) -> None:
        self.regions: dict[str, Region] = {r.name: r for r in self.plan.regions}
        self.targets: dict[str, Target] = {t.region: t for t in self.plan.targets}
        self.pathways: dict[str, Pathway] = {p.name: p for p in self.plan.pathways}
        self.root = self.plan.waves[0][0]
        self.read_e = {base(v) for t in self.plan.tasks if t.kind in "DT" for v in t.reads if v.startswith("e.")}
        self.slot = SlotMap(frozenset(v for t in self.plan.tasks if t.kind == "R" for v in t.writes))

    @property
    def alone(self) -> bool:
        """True where one device runs the batch as a whole."""
        return len(self.plan.devices) == 1 and self.plan.schedule.microbatches == 1 and not self.shared
