"""What backprop's schedules are priced with: stages in the model's order, and the links between their devices."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the model on one device; times and bytes of one microbatch.

    `forward_us`, `input_us` (B, gradient of the inputs) and `weight_us` (W); `backward_us` is B and W in one call,
    their sum where it is 0. `activation_bytes` live from the forward pass until the weight gradient is made.
    `message_bytes` go to the next stage, and as many come back as gradients. `static_bytes` (weights, gradients,
    optimizer state, the batch's inputs) stay; `gradient_bytes` is what replicas of the stage have to sum.
    """

    forward_us: float = 1.0
    input_us: float = 1.0
    weight_us: float = 1.0
    backward_us: float = 0.0
    activation_bytes: float = 1.0
    message_bytes: float = 0.0
    static_bytes: float = 0.0
    gradient_bytes: float = 0.0

    @property
    def both_us(self) -> float:
        """B and W in one call."""
        return self.backward_us or self.input_us + self.weight_us


@dataclass(frozen=True, slots=True)
class Link:
    """The link that leaves a device; 0 is unlimited and at once."""

    bytes_per_s: float = 0.0
    latency_us: float = 0.0

    def occupied_us(self, bytes_: float) -> float:
        """How long a message occupies the link."""
        return bytes_ / self.bytes_per_s * 1e6 if self.bytes_per_s else 0.0


def equal_stages(count: int, stage: Stage | None = None) -> tuple[Stage, ...]:
    """`count` stages of one cost: F = B = W = 1 where none is given."""
    return (stage or Stage(),) * count
