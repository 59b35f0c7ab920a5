"""What a diagnosis consists of: numbers by region and probe, and warnings; see docs/diagnose.md. Torch-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from reclra_compile.ir import Plan, Training


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """Can a region reach its target y = φ(h − β d)? All are shares or ratios; a cosine lies in [−1, 1].

    `jump` ‖z − y‖ ÷ ‖z‖; `saturated` share of neurons with |φ′(h − β d)| < 0.01; `pushed` those of them whose
    |φ′(h)| was not; `rounding` relative error of z − y against float64; `aim` cosine of y − z with
    the change of z by a plain step W − lr ΔW; `removed` share of ‖z − y‖² that this step removes.
    """

    jump: float
    saturated: float
    pushed: float
    rounding: float
    aim: float | None = None
    removed: float | None = None


@dataclass(frozen=True, slots=True)
class RegionFacts:
    """One region at one probe; None where a value does not exist.

    `angle` in degrees between ΔW and backprop's gradient, of the norms `update` and `gradient`; `error` RMS of
    the error neurons, `activity` RMS of z; `dead` share of units that are constant over the batch; `synapse_norm`
    ‖E‖ of the synapses into the region, `synapse_growth` that ÷ its first value; `readout_loss` the loss of the
    region's own read-out; `discrepancy` its term of D(Θ).
    """

    name: str
    angle: float | None = None
    update: float | None = None
    gradient: float | None = None
    error: float | None = None
    activity: float | None = None
    dead: float | None = None
    synapse_norm: float | None = None
    synapse_growth: float | None = None
    readout_loss: float | None = None
    discrepancy: float | None = None
    target: TargetFacts | None = None

    @property
    def relative_error(self) -> float | None:
        """RMS of the error neurons ÷ RMS of z."""
        return self.error / self.activity if self.error is not None and self.activity else None

    def as_json(self) -> dict[str, Any]:
        """The facts as plain data; `target` is null where the region has no target y."""
        return {**asdict(self), "relative_error": self.relative_error}


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured before step `step` + 1: the loss on the probe batch, D(Θ), and each region."""

    step: int
    loss: float
    lr: float
    discrepancy: float
    regions: tuple[RegionFacts, ...]

    def of(self, region: str) -> RegionFacts:
        """The facts of one region; KeyError where there is none."""
        return {r.name: r for r in self.regions}[region]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding in plain words, and the setting to change; `region` "" where it is about the whole run."""

    code: str
    region: str
    message: str
    suggestion: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A brief training run as it was measured; `stopped` says why it ended early, "" where it did not."""

    plan: Plan
    settings: Training
    data: str
    samples: int
    probes: tuple[Probe, ...]
    stopped: str = ""

    @property
    def last(self) -> Probe:
        """The last probe."""
        return self.probes[-1]
