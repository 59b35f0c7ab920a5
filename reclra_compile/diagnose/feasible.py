"""Can a region reach its target? Measured on y = φ(h − β d) of one batch, and on the next step's change of z."""

from __future__ import annotations

import torch
from torch import Tensor

from reclra_compile.diagnose.facts import TargetFacts
from reclra_compile.ir import Target
from reclra_compile.rules import targets as rules
from reclra_compile.rules.targets import Elementwise

FLAT = 0.01  #: below this |φ′| the activation is called flat


def target_facts(
    target: Target, phi: Elementwise | None, z: Tensor, h: Tensor, d: Tensor, moved: Tensor | None
) -> TargetFacts:
    """The target's facts from z, h and d, all (N, …); `moved` is h after the next step on the same inputs."""
    m = rules.mismatch(target, phi, own=target.phi == "same", overwrite=False)(h, z, d)
    exact = _exact(target.beta, phi, h, d)
    flat_y, flat_h = _flat(phi, h.float() - target.beta * d.float()), _flat(phi, h.float())
    aim, removed = (None, None) if moved is None else _step(phi, h, moved, m)
    return TargetFacts(
        jump=_ratio(m, z),
        saturated=float(flat_y.double().mean()),
        pushed=float((flat_y & ~flat_h).double().mean()),
        rounding=_ratio(m.double() - exact, exact),
        aim=aim,
        removed=removed,
    )


def _exact(beta: float, phi: Elementwise | None, h: Tensor, d: Tensor) -> Tensor:
    """z − y in float64, from the same h and d."""
    h, d = h.double(), d.double()
    return beta * d if phi is None else phi(h) - phi(h - beta * d)


def _flat(phi: Elementwise | None, at: Tensor) -> Tensor:
    """Where |φ′| is below `FLAT`; a φ that has no derivative (sign) is flat everywhere."""
    if phi is None:
        return torch.zeros_like(at, dtype=torch.bool)
    with torch.enable_grad():
        point = at.detach().clone().requires_grad_()
        value = phi(point)
        if not value.requires_grad:
            return torch.ones_like(at, dtype=torch.bool)
        (slope,) = torch.autograd.grad(value.sum(), point)
    return slope.abs() < FLAT


def _step(phi: Elementwise | None, h: Tensor, moved: Tensor, m: Tensor) -> tuple[float | None, float | None]:
    """Cosine of the change of z with y − z, and the share of ‖z − y‖² that the change removes."""
    z, after = (h, moved) if phi is None else (phi(h), phi(moved))
    change, wanted = (after - z).double().flatten(), -m.double().flatten()
    size, length = float(change.norm()), float(wanted.norm())
    if length == 0.0:
        return None, None
    aim = float(change @ wanted) / (size * length) if size else None
    return aim, 1.0 - float((wanted - change).square().sum()) / length**2


def _ratio(a: Tensor, b: Tensor) -> float:
    """‖a‖ ÷ ‖b‖; 0 where both are zero."""
    over, under = float(a.double().norm()), float(b.double().norm())
    return over / under if under else float("inf") if over else 0.0
