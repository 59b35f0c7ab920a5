"""The paper's equations as plain loops over layers, independent of the package.

Algorithm 1 with its slips mended: E1 feeds z (not h) forward, E6 pairs d_i with e_j. Layers are
numbered from 1; `pathways[i]` lists the sources j of layer i's displacement with their E_{j→i} of
shape (units of i, units of j). Gradients are of the mean loss: sums over the batch divided by N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

PHI: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda h: h.clamp(min=0),
    "tanh": torch.tanh,
    "elu": lambda h: torch.where(h > 0, h, torch.expm1(h)),
    "sigmoid": lambda h: 1 / (1 + torch.exp(-h)),
    "sign": torch.sign,
    "identity": lambda h: h,
}
DERIVATIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda h: (h > 0).to(h.dtype),
    "tanh": lambda h: 1 - torch.tanh(h) ** 2,
    "elu": lambda h: torch.where(h > 0, torch.ones_like(h), torch.exp(h)),
    "sigmoid": lambda h: torch.exp(-h) / (1 + torch.exp(-h)) ** 2,
    "sign": torch.zeros_like,
    "identity": torch.ones_like,
}


@dataclass
class Network:
    """W[l], b[l] for l = 1…L (index 0 unused); a residual network adds z_{l−gap} where l mod gap = 0."""

    W: list[Tensor]
    b: list[Tensor]
    phi: str
    gap: int = 0

    @property
    def depth(self) -> int:
        return len(self.W) - 1

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """h and z of every layer; z[0] = x; the output layer has no activation (logits)."""
        h, z = [x], [x]
        for level in range(1, self.depth + 1):
            a = z[level - 1] @ self.W[level].T + self.b[level]
            if self.skips(level):
                a = a + z[level - self.gap]
            h.append(a)
            z.append(a if level == self.depth else PHI[self.phi](a))
        return h, z

    def skips(self, level: int) -> bool:
        """True where layer `level` adds z_{level−gap}; never from the input, never at the output."""
        return bool(self.gap) and level % self.gap == 0 and self.gap < level < self.depth


@dataclass
class Rule:
    """Options of the target rule (E2–E4)."""

    rule: str = "lra"
    beta: float = 0.1
    normalize: bool = False
    kappa: float = 1.0
    p: int = 2
    q: int = 2
    phi: str = "same"


@dataclass
class Result:
    """Gradients by layer number, and by (source, target) for synapses."""

    loss: Tensor
    W: dict[int, Tensor] = field(default_factory=dict)
    b: dict[int, Tensor] = field(default_factory=dict)
    E: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    e: dict[int, Tensor] = field(default_factory=dict)
    discrepancy: dict[int, float] = field(default_factory=dict)


def run(
    net: Network,
    x: Tensor,
    y: Tensor,
    pathways: dict[int, list[tuple[int, Tensor]]],
    rule: Rule,
    update: str = "lra",
    gamma: float = 1.0,
) -> Result:
    """One step of Algorithm 1: errors (E3, E4), weight updates (E5) and synapse updates (E6 or E8)."""
    h, z = net.forward(x)
    count, top = len(x), net.depth
    log_p = z[top] - torch.logsumexp(z[top], 1, keepdim=True)
    one_hot = torch.zeros_like(log_p)
    for n in range(count):
        one_hot[n, y[n]] = 1
    result = Result(loss=-(one_hot * log_p).sum() / count)
    e = {top: torch.exp(log_p) - one_hot}
    d: dict[int, Tensor] = {}
    result.discrepancy[top] = float((e[top] ** 2).sum() / count)
    waiting = [i for i in range(top - 1, 0, -1) if i in pathways]
    while waiting:
        i = next(k for k in waiting if all(j in e for j, _ in pathways[k]))
        waiting.remove(i)
        d[i] = sum(e[j] @ E.T for j, E in pathways[i])
        e[i] = _errors(net, rule, h[i], d[i], result, i)
    for i in e:
        result.W[i] = sum(torch.outer(e[i][n], z[i - 1][n]) for n in range(count)) / count
        result.b[i] = e[i].sum(0) / count
    for i, sources in pathways.items():
        for j, _ in sources:
            left = -gamma * d[i] if update == "lra" else z[i]
            result.E[j, i] = sum(torch.outer(left[n], e[j][n]) for n in range(count)) / count
    result.e = e
    return result


def _errors(net: Network, rule: Rule, h: Tensor, d: Tensor, result: Result, i: int) -> Tensor:
    if rule.rule == "gradient":
        return d * DERIVATIVE[net.phi](h)
    phi = PHI[net.phi if rule.phi == "same" else rule.phi]
    m = phi(h) - phi(h - rule.beta * d)
    norm = m.abs().sum(1) if rule.p == 1 else (m**2).sum(1).sqrt()
    result.discrepancy[i] = float(rule.kappa * (norm**rule.q).mean())
    if rule.normalize:
        m = m / rule.beta
        norm = norm / rule.beta
    if (rule.p, rule.q) == (2, 2):
        e = m
    elif (rule.p, rule.q) == (1, 1):
        e = torch.sign(m)
    elif (rule.p, rule.q) == (2, 1):
        e = m / norm.clamp(min=1e-30)[:, None]
    else:
        e = torch.sign(m) * norm[:, None]
    return rule.kappa * e


def local_readout(
    z: Tensor, y: Tensor, E: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """E9: gradients of E (units, classes) and b of the mean cross entropy of the read-out softmax(Eᵀz + b)."""
    logits = z @ E + b
    v = torch.softmax(logits, 1)
    for n in range(len(y)):
        v[n, y[n]] -= 1
    return z.T @ v / len(y), v.sum(0) / len(y)


def backprop_angles(a: dict[int, Tensor], b: dict[int, Tensor]) -> dict[int, float]:
    """Cosine between two sets of weight gradients, by layer."""
    return {i: float((a[i] * b[i]).sum() / (a[i].norm() * b[i].norm())) for i in a}
