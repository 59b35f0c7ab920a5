"""The target rules and synapse updates that come with the package, entered as those of other packages are.

Torch is not imported: the functions only use what tensors can do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from reclra_compile.rules.registry import (
    KERNELS,
    TARGETS,
    UPDATES,
    SynapseUpdate,
    TargetRule,
    register_target,
    register_update,
)

if TYPE_CHECKING:
    from torch import Tensor

    Elementwise = Callable[[Tensor], Tensor]
    Factors = tuple[Tensor, Tensor]


@register_target("lra")
def lra_target(h: Tensor, d: Tensor, phi: Elementwise, beta: float) -> Tensor:
    """y = φ(h − β d), e = z − y: no derivative of φ (E3, E4)."""
    return phi(h - beta * d)


TARGETS.add(TargetRule("gradient", "e = d ⊙ φ'(h)"))


@register_target("difference_target", derivative=True)
def difference_target(z: Tensor, d: Tensor, beta: float) -> Tensor:
    """y = z − β d, where d is a difference of learned inverses (autoencoding); ΔW descends ‖z − y‖²/2 (E11)."""
    return z - beta * d


TARGETS.add(
    TargetRule("equilibrium", "states settle freely and nudged by ±β towards the labels; ΔW is their contrast (E13)")
)


@register_update("kolen_pollack")
def kolen_pollack(z: Tensor, e: Tensor) -> Factors:
    """ΔE = z eᵀ: the transpose of the forward update between neighbours (E8)."""
    return z, e


# mirrors get the forward weight's own gradient
UPDATES.add(replace(UPDATES["kolen_pollack"], kernels=(*KERNELS, "mirror")))


@register_update("local_readout", readout=True)
def local_readout(z: Tensor, r: Tensor) -> Factors:
    """Each region learns its own read-out of the target and hears errors back through it (E9)."""
    return z, r


@register_update("local_loss", readout=True)
def local_loss(z: Tensor, r: Tensor) -> Factors:
    """As local_readout, and what the region hears is its own read-out's error in place of the output's (E10)."""
    return z, r


@register_update("lra")
def lra(d: Tensor, e: Tensor) -> Factors:
    """ΔE = −γ d eᵀ with the paper's printed sign (E6)."""
    return d, -e


UPDATES.add(
    SynapseUpdate(
        "autoencoding",
        "E learns to undo the source region's forward pass, and carries the difference of two inversions (E11)",
        reads=("z", "x"),
    )
)
UPDATES.add(
    SynapseUpdate(
        "weight_mirror",
        "feedback weights learn from noise that is sent through the forward weights (E12)",
        reads=("loss",),
        kernels=("mirror",),
    )
)
UPDATES.add(SynapseUpdate("fixed", "the synapses never change", kernels=(*KERNELS, "mirror")))
UPDATES.add(
    SynapseUpdate("tied", "the synapses are the model's own weights", kernels=("adjoint", "transpose", "sign"))
)
