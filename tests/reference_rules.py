"""The baselines' equations as plain loops over layers, independent of the package (see `reference.py`).

Networks are those of `reference.Network`; gradients are of the mean loss.
"""

from __future__ import annotations

import torch
from reference import DERIVATIVE, PHI, Network
from torch import Tensor


def softmax_error(net: Network, z_top: Tensor, y: Tensor) -> Tensor:
    """softmax − one-hot, per sample."""
    p = torch.exp(z_top - torch.logsumexp(z_top, 1, keepdim=True))
    for n in range(len(y)):
        p[n, y[n]] -= 1
    return p


def outer(left: Tensor, right: Tensor) -> Tensor:
    """Σ_n left_n right_nᵀ ÷ N, sample by sample."""
    return sum(torch.outer(left[n], right[n]) for n in range(len(left))) / len(left)


def difference_target_propagation(
    net: Network,
    x: Tensor,
    y: Tensor,
    inverse: dict[int, tuple[Tensor, Tensor]],
    rate: float,
    noise: dict[int, Tensor],
) -> tuple[dict[int, Tensor], dict[int, tuple[Tensor, Tensor]]]:
    """ΔW by layer, and (ΔV, Δc) by layer, of Lee et al. 2015.

    `inverse[i]` = (V, c) of the inverse from layer i + 1 to layer i; `rate` is the step of the last hidden
    layer's target down the loss's gradient; `noise[i]` is what the autoencoder of layer i adds.
    """
    h, z = net.forward(x)
    top = net.depth
    e_top = softmax_error(net, z[top], y)
    phi, slope = PHI[net.phi], DERIVATIVE[net.phi]

    def back(i: int, v: Tensor) -> Tensor:
        V, c = inverse[i]
        return phi(v @ V.T + c)

    target = {top - 1: z[top - 1] - rate * (e_top @ net.W[top])}
    for i in range(top - 2, 0, -1):
        target[i] = z[i] + back(i, target[i + 1]) - back(i, z[i + 1])
    dW = {top: outer(e_top, z[top - 1])}
    for i, t in target.items():
        dW[i] = outer((z[i] - t) * slope(h[i]), z[i - 1])
    dV: dict[int, tuple[Tensor, Tensor]] = {}
    for i in range(1, top - 1):
        corrupted = z[i] + noise[i]
        ahead = phi(corrupted @ net.W[i + 1].T + net.b[i + 1])
        V, c = inverse[i]
        a = ahead @ V.T + c
        delta = (phi(a) - corrupted) * slope(a)
        dV[i] = outer(delta, ahead), delta.mean(0)
    return dW, dV


def settle(
    net: Network, x: Tensor, s: dict[int, Tensor], steps: int, size: float, nudge: float, y: Tensor, gamma: float
) -> dict[int, Tensor]:
    """Hidden states after `steps` synchronous steps s ← (1 − size) s + size φ(W s_below + b + γ Wᵀ s_above)."""
    top, phi = net.depth, PHI[net.phi]
    for _ in range(steps):
        new = {}
        for i in range(1, top):
            below = x if i == 1 else s[i - 1]
            drive = below @ net.W[i].T + net.b[i]
            if i + 1 < top:
                drive = drive + gamma * s[i + 1] @ net.W[i + 1]
            else:
                error = softmax_error(net, s[i] @ net.W[top].T + net.b[top], y)
                drive = drive - gamma * nudge * (error @ net.W[top])
            new[i] = (1 - size) * s[i] + size * phi(drive)
        s = new
    return s


def equilibrium_propagation(
    net: Network, x: Tensor, y: Tensor, beta: float, free: int, nudged: int, size: float, gamma: float
) -> tuple[dict[int, Tensor], dict[int, Tensor], dict[int, Tensor]]:
    """ΔW and Δb by layer, and the free states: nudged from both sides, the output reads the free states."""
    _, z = net.forward(x)
    top = net.depth
    rest = settle(net, x, {i: z[i] for i in range(1, top)}, free, size, 0.0, y, gamma)
    plus = settle(net, x, rest, nudged, size, beta, y, gamma)
    minus = settle(net, x, rest, nudged, size, -beta, y, gamma)
    dW: dict[int, Tensor] = {}
    db: dict[int, Tensor] = {}
    for i in range(1, top):
        below = [x, x] if i == 1 else [plus[i - 1], minus[i - 1]]
        weaker = gamma ** (top - i)  # by as much as the nudge is when it comes here
        dW[i] = -(outer(plus[i], below[0]) - outer(minus[i], below[1])) / (2 * beta * weaker)
        db[i] = -(plus[i] - minus[i]).mean(0) / (2 * beta * weaker)
    error = softmax_error(net, rest[top - 1] @ net.W[top].T + net.b[top], y)
    dW[top], db[top] = outer(error, rest[top - 1]), error.mean(0)
    return dW, db, rest


def feedback(net: Network, x: Tensor, y: Tensor, B: dict[int, Tensor]) -> dict[int, Tensor]:
    """ΔW by layer where the error of layer l + 1 goes back through B[l + 1], of W's shape (FA, SS, WM, KP)."""
    h, z = net.forward(x)
    top = net.depth
    e = softmax_error(net, z[top], y)
    dW = {top: outer(e, z[top - 1])}
    for i in range(top - 1, 0, -1):
        e = (e @ B[i + 1]) * DERIVATIVE[net.phi](h[i])
        dW[i] = outer(e, z[i - 1])
    return dW


def mirror(W: Tensor, B: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """ΔB of mirror mode (Akrout et al. 2019): decay, and minus the correlation of noise with its response."""
    response = torch.stack([W @ xi for xi in noise])
    return B - outer(response, noise) / sigma**2
