"""From a region's displacement to its error neurons: the mismatch m = z − y, and the norms of E2.

The target y is made by the rule's function in the registry; `lra` (E3), which most wirings use, has a faster form
here. `gradient`: e = d ⊙ φ'(h) needs φ's graph and is done where that graph lives, in the runtime.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reclra_compile.errors import Fault, UserError
from reclra_compile.ir import Target
from reclra_compile.rules.catalogue import TARGETS

Elementwise = Callable[[Tensor], Tensor]
TINY = 1e-30


def mismatch(
    target: Target, phi: Elementwise | None, own: bool, overwrite: bool
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(h, z, d) → m = z − y, all (N, …); for lra y = φ(h − β d) (E3); `phi` None is the identity, where m = β d.

    Where `own` is false `phi` is not the region's own activation, and z is replaced by φ(h). With
    `overwrite` the result takes d's memory: a fresh tensor costs more in page faults than the arithmetic.
    """
    beta = target.beta
    if target.rule == "difference_target":  # z − (z − β d), exactly
        return lambda h, z, d: d * beta
    if target.rule != "lra":
        return _by_rule(target, phi or _identity, own)
    if phi is None:
        return (lambda h, z, d: d.mul_(beta)) if overwrite else (lambda h, z, d: d * beta)
    if_low = _in_float32(phi, beta)
    moved = IN_PLACE.get(phi, phi)

    def same(h: Tensor, z: Tensor, d: Tensor) -> Tensor:
        if h.dtype in LOW:
            return if_low(h, d)
        y = moved(torch.add(h, d, alpha=-beta, out=d if overwrite else None))
        return torch.sub(z, y, out=y)

    def other(h: Tensor, z: Tensor, d: Tensor) -> Tensor:
        if h.dtype in LOW:
            return if_low(h, d)
        y = moved(torch.add(h, d, alpha=-beta, out=d if overwrite else None))
        return torch.sub(phi(h), y, out=y)

    return same if own else other


def _by_rule(target: Target, phi: Elementwise, own: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(h, z, d) → z − y with the target y of the rule's own function, in float32 at least."""
    rule = TARGETS[target.rule]
    assert rule.function is not None  # the runtime sees to rules without one
    function, fixed = rule.function, {"phi": phi, "beta": target.beta}
    fixed = {name: value for name, value in fixed.items() if name in rule.reads}

    def run(h: Tensor, z: Tensor, d: Tensor) -> Tensor:
        if h.dtype in LOW:  # a stored z of 8 bits would swamp a small mismatch
            h, d = h.float(), d.float()
            z = phi(h)
        elif not own:
            z = phi(h)
        given = {"h": h, "z": z, "d": d}
        y: Tensor = function(**{name: x for name, x in given.items() if name in rule.reads}, **fixed)
        if not isinstance(y, Tensor) or y.shape != z.shape:
            found = tuple(y.shape) if isinstance(y, Tensor) else f"a {type(y).__name__}"
            message = f"the target rule '{rule.name}' returns {found}, not a target of shape {tuple(z.shape)}"
            raise UserError(Fault("L004", message, fix="return y, a tensor of z's shape"))
        return z - y

    return run


def _identity(h: Tensor) -> Tensor:
    return h


def times_derivative(phi: Elementwise | None) -> Callable[[Tensor, Tensor], Tensor]:
    """(h, e) → e ⊙ φ'(h), all (N, …)."""
    if phi is None:
        return lambda h, e: e

    def run(h: Tensor, e: Tensor) -> Tensor:
        leaf = h.detach().requires_grad_(True)
        with torch.enable_grad():
            z = phi(leaf)
        (slope,) = torch.autograd.grad(z, leaf, e.to(z.dtype))
        return slope

    return run


LOW = (torch.bfloat16, torch.float16)


def _in_float32(phi: Elementwise, beta: float) -> Callable[[Tensor, Tensor], Tensor]:
    """(h, d) → φ(h) − φ(h − β d) in float32: with a stored z of 8 bits a small β d would vanish."""

    def exact(h: Tensor, d: Tensor) -> Tensor:
        h = h.float()
        return phi(h) - phi(h - beta * d.float())

    return exact


#: activations with a variant that overwrites its argument
IN_PLACE: dict[Elementwise, Elementwise] = {
    torch.relu: torch.relu_,
    torch.tanh: torch.tanh_,
    torch.sigmoid: torch.sigmoid_,
}


def error_scale(target: Target) -> float:
    """κ, divided by β where the mismatch is normalised: e = error_scale · direction(m)."""
    scales_with_m = (target.p == 2 and target.q == 2) or (target.p == 1 and target.q == 2)
    return target.kappa / target.beta if target.normalize and scales_with_m else target.kappa


def direction(target: Target) -> Callable[[Tensor], Tensor] | None:
    """∂(1/q)‖m‖_p^q/∂m per sample (E2); None where it is m itself (p = q = 2, the paper's E4)."""
    if (target.p, target.q) == (2, 2):
        return None
    if (target.p, target.q) == (1, 1):
        return torch.sign
    if (target.p, target.q) == (2, 1):
        return lambda m: m / _per_sample(torch.linalg.vector_norm(m.flatten(1), 2, dim=1), m).clamp_min(TINY)
    return lambda m: torch.sign(m) * _per_sample(m.flatten(1).abs().sum(1), m)


def discrepancy(target: Target, m: Tensor) -> Tensor:
    """κ ‖m‖_p^q averaged over the batch: the region's term of D(Θ), E2. m: (N, …); scalar."""
    if (target.p, target.q) == (2, 2):
        flat = m.flatten()
        return torch.dot(flat, flat) * (target.kappa / m.shape[0])
    norms = torch.linalg.vector_norm(m.flatten(1), target.p, dim=1)
    mean: Tensor = norms.pow(target.q).mean()
    return mean * target.kappa


def rescaled(d: Tensor, h: Tensor, e_output: Tensor) -> Tensor:
    """Each sample's d set to the length ‖h‖·‖e_L‖; shapes (N, …)."""
    length = torch.linalg.vector_norm(h.flatten(1), dim=1) * torch.linalg.vector_norm(e_output.flatten(1), dim=1)
    norm = torch.linalg.vector_norm(d.flatten(1), dim=1).clamp_min(TINY)
    return d * _per_sample(length / norm, d)


def _per_sample(values_N: Tensor, like: Tensor) -> Tensor:
    return values_N.view(-1, *[1] * (like.ndim - 1))
