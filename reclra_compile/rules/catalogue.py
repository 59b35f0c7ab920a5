"""The names a wiring may use: granularities, kernels and initial distributions; rules are in the registry.

Torch-free, so that wirings are checked and plans are made without it; what each name does with
tensors is in `reclra_compile.rules.kernels`, `.targets` and `.shipped`.
"""

from __future__ import annotations

from dataclasses import dataclass

import reclra_compile.rules.shipped  # noqa: F401  (enters the rules that come with the package)
from reclra_compile.rules.registry import TARGETS, UPDATES

__all__ = [
    "AUTO_UPDATE", "Entry", "GRANULARITIES", "INITS", "KERNELS", "NOISE", "TARGETS", "UPDATES",
    "can_have", "reads_out", "updates_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One name with its meaning in a line."""

    name: str
    about: str


def _entries(**about: str) -> dict[str, Entry]:
    return {name: Entry(name, text) for name, text in about.items()}


GRANULARITIES: dict[str, Entry] = _entries(
    layer="each parametric operation with its norm and activation",
    block="each residual or transformer block: what lies between values that all paths pass",
    groups="{groups: K}: K runs of consecutive blocks, as equal in cost as blocks allow",
)

KERNELS: dict[str, Entry] = _entries(
    auto="dense between vectors, spatial, channel or conv onto feature maps, as fine as fits the memory; it says why",
    dense="a full matrix from the source's error neurons to the target's neurons",
    low_rank="a product of two thin matrices: {low_rank: RANK}",
    channel="a matrix from the source's channels to the target's, the same at every cell of the map",
    spatial="a full matrix onto the target's map pooled to a few cells per axis: {spatial: 4}",
    conv="a transposed convolution from the source's map to its neighbour's",
    adjoint="the exact vector-Jacobian product along the model's own edge (backprop)",
    transpose="the forward weight's transpose along the model's own edge, tied",
    sign="the sign of the forward weight times its mean magnitude, tied (sign symmetry)",
    mirror="separate weights of the forward weight's shape along the model's own edge (feedback alignment)",
)

INITS: dict[str, Entry] = _entries(
    auto="normal 0.001 from the output, fan_in 1 elsewhere",
    normal="normal with the given standard deviation",
    uniform="uniform in ± the given bound",
    fan_in="normal with standard deviation gain ÷ √(source neurons)",
    glorot="uniform in ± gain·√(6 ÷ (source + target neurons))",
    orthogonal="(semi-)orthogonal times the gain",
    transpose="a copy of the forward weight's transpose times the gain (one dense layer between the two)",
    zeros="all zero",
)

AUTO_UPDATE = Entry(
    "auto", "local_readout on pathways fed by the output, kolen_pollack elsewhere, tied on tied kernels"
)

#: updates whose synapses hear noise, with its standard deviation where a wiring gives none
NOISE = {"autoencoding": 0.1, "weight_mirror": 1.0}


def reads_out(update: str) -> bool:
    """True for updates that read out labels, so that their pathways come from the output."""
    return update in UPDATES and UPDATES[update].readout


def can_have(kernel: str, update: str) -> bool:
    """True where synapses of `kernel` can learn by `update`."""
    return update in UPDATES and kernel in UPDATES[update].kernels


def updates_of(kernel: str) -> tuple[str, ...]:
    """The updates that a kernel can have; the first is the default of `auto`."""
    return tuple(name for name, update in UPDATES.known.items() if kernel in update.kernels)
