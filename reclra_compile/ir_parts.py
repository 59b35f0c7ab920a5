"""What a plan says beside its graph: devices, placement, microbatches, cost, and training settings (see `ir`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """One device and the link that leaves it; a rate or memory of 0 is unlimited.

    `flops_per_s` is for the model's precision, `bytes_per_s` the memory's bandwidth, `link_bytes_per_s` and
    `link_latency_us` what a message to another device meets, `task_us` what it takes to start a task. `kind` names
    the profile that the numbers come from.
    """

    name: str = "device0"
    kind: str = "any"
    flops_per_s: float = 0.0
    bytes_per_s: float = 0.0
    memory_bytes: int = 0
    link_bytes_per_s: float = 0.0
    link_latency_us: float = 0.0
    task_us: float = 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """The device (by index) of each region, and the most bytes that live on each device at once."""

    regions: tuple[tuple[str, int], ...] = ()
    peak_bytes: tuple[int, ...] = ()

    def of(self, region: str) -> int:
        """Device index of `region`; KeyError where it has none."""
        return dict(self.regions)[region]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a batch is cut into microbatches, which each device takes in turns (`Task.turn`).

    `staleness` 1: a step's gradients are those of the weights before the last update, so that the next batch's forward
    pass need not wait for it.
    """

    microbatches: int = 1
    staleness: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Predicted cost of one step, in FLOPs per batch and in bytes.

    `traffic_bytes` is what the tasks read and write, `sent_bytes` what devices send to each other, for the batch.
    """

    backprop_flops: int = 0
    forward_flops: int = 0
    weight_flops: int = 0
    error_flops: int = 0
    synapse_update_flops: int = 0
    critical_path_flops: int = 0
    backprop_critical_path_flops: int = 0
    parameter_bytes: int = 0
    synapse_bytes: int = 0
    saved_bytes: int = 0
    backprop_saved_bytes: int = 0
    traffic_bytes: int = 0
    sent_bytes: int = 0

    @property
    def flops(self) -> int:
        """FLOPs of one step of this plan."""
        return self.forward_flops + self.weight_flops + self.error_flops + self.synapse_update_flops

    @property
    def ratio(self) -> float:
        """FLOPs of this plan ÷ FLOPs of backprop on the same model: the bound on one device."""
        return self.flops / self.backprop_flops if self.backprop_flops else 1.0


@dataclass(frozen=True, slots=True)
class Training:
    """Settings the wiring was measured with; `reclra-compile train` uses them where no flag is given.

    `warmup` is what the rate takes to rise from zero: below 1 a share of the run, from 1 on epochs. `lr_end` and
    `power` are the polynomial schedule's. `clip` 0 is off; `readout_rate` multiplies the rate of
    local read-outs (E9), which have to follow the features they read, `inverse_rate` that of learned inverses
    (autoencoding), `mirror_rate` that of mirrors that learn from noise (weight_mirror); `beta2` is Adam's.
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    lr_end: float = 0.0
    power: float = 1.0
    readout_rate: float = 1.0
    inverse_rate: float = 1.0
    mirror_rate: float = 1.0
    beta2: float = 0.999
    batch_size: int = 128
    epochs: int = 10
    clip: float = 0.0
