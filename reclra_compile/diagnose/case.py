"""One region of a diagnosis as rules look at it. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reclra_compile.diagnose.facts import Diagnosis, RegionFacts
from reclra_compile.ir import Pathway, Region, Target


@dataclass(frozen=True)
class Case:
    """One region of a diagnosis: what it is, its first and last facts, and the pathways into it."""

    diagnosis: Diagnosis
    region: Region
    target: Target | None
    pathways: tuple[Pathway, ...]
    first: RegionFacts
    last: RegionFacts

    @property
    def is_output(self) -> bool:
        """True for the region that makes the model's output."""
        return self.region.name == self.diagnosis.plan.waves[0][0]

    @property
    def angle(self) -> float | None:
        """The smaller angle of the last two probes after the first step, so that one odd batch is no finding."""
        probes = [p for p in self.diagnosis.probes if p.step > 0][-2:]
        angles = [a for p in probes if (a := p.of(self.region.name).angle) is not None]
        return min(angles, default=None)

    @property
    def phi(self) -> str:
        """The activation that the region's target uses."""
        return self.target.phi if self.target is not None and self.target.phi != "same" else self.region.phi

    @property
    def lr(self) -> str:
        """The run's learning rate, as it is shown."""
        return f"{self.diagnosis.settings.lr:g}"

    @property
    def updates(self) -> frozenset[str]:
        """How the synapses into the region learn."""
        return frozenset(p.update for p in self.pathways)

    def worst(self, name: str) -> float:
        """The largest value of a fact of the target over all probes; 0 where it has none."""
        facts = (p.of(self.region.name).target for p in self.diagnosis.probes)
        return max((v for t in facts if t is not None and (v := getattr(t, name)) is not None), default=0.0)


def cases(d: Diagnosis) -> Iterator[Case]:
    """A case per region, in the model's order."""
    targets = {t.region: t for t in d.plan.targets}
    for r in d.plan.regions:
        into = tuple(p for p in d.plan.pathways if p.target == r.name)
        yield Case(d, r, targets.get(r.name), into, d.probes[0].of(r.name), d.last.of(r.name))
