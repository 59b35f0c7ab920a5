"""The names a wiring may use: kernels, target rules, synapse updates, initial distributions.

Torch-free, so that wirings are checked and plans are made without it; what each name does with
tensors is in `reclra_compile.rules.kernels`, `.targets` and `.updates`.
"""

from __future__ import annotations

from dataclasses import dataclass


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

RULES: dict[str, Entry] = _entries(
    lra="y = φ(h − β d), e = z − y: no derivative of φ (E3, E4)",
    gradient="e = d ⊙ φ'(h)",
)

UPDATES: dict[str, Entry] = _entries(
    auto="local_readout on pathways fed by the output, kolen_pollack elsewhere, tied on tied kernels",
    fixed="the synapses never change",
    lra="ΔE = −γ d eᵀ with the paper's printed sign (E6)",
    kolen_pollack="ΔE = z eᵀ: the transpose of the forward update between neighbours (E8)",
    local_readout="each region learns its own read-out of the target and hears errors back through it (E9)",
    local_loss="as local_readout, and what the region hears is its own read-out's error in place of the output's (E10)",
    tied="the synapses are the model's own weights",
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

#: updates that read out labels, so that their pathways come from the output
READOUTS = frozenset({"local_readout", "local_loss"})

#: updates each kernel can have; the first is the default of `auto`
UPDATES_OF: dict[str, tuple[str, ...]] = {
    "dense": ("kolen_pollack", "local_readout", "local_loss", "lra", "fixed"),
    "low_rank": ("kolen_pollack", "local_readout", "local_loss", "lra", "fixed"),
    "channel": ("kolen_pollack", "local_readout", "local_loss", "lra", "fixed"),
    "spatial": ("kolen_pollack", "local_readout", "local_loss", "lra", "fixed"),
    "conv": ("kolen_pollack", "lra", "fixed"),
    "adjoint": ("tied",),
    "transpose": ("tied",),
    "sign": ("tied",),
    "mirror": ("kolen_pollack", "fixed"),
}
