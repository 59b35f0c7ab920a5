"""Mirror mode (E12): feedback weights learn from noise that is sent through the forward weights.

M. Akrout, C. Wilson, P. Humphreys, T. Lillicrap and D. B. Tweed, "Deep learning without weight transport",
NeurIPS 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reclra_compile.ir import Pathway
from reclra_compile.rules.kernels import add_grad
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.state import Slots


def mirror_mode(p: Pathway, linked: Linked) -> Step:
    """Task M: for each layer of the source region, ΔB = B − mean_n (W ξ) ξᵀ ÷ σ² with ξ ~ N(0, σ²), as many as samples.

    The mean of the correlation over the noise is W, so B descends to it. A filter sees noise in its own window:
    (out, in) weights and (out, in, …) filters are treated alike.
    """
    mirrors, sigma = linked.mirrors[p.source], p.noise

    def run(v: Slots) -> None:
        if v[0].number:  # once for each step
            return
        count = v[0].whole or v[0].batch
        for forward, B, turned in mirrors:
            away = B - correlation(forward.t() if turned else forward, sigma, count)
            add_grad(B, (away if v[0].amplified == 1.0 else away * v[0].amplified).view(B.shape))

    return run


def correlation(W: nn.Parameter | Tensor, sigma: float, count: int) -> Tensor:
    """mean_n (W ξ_n) ξ_nᵀ ÷ σ² over `count` samples of noise; of W's shape."""
    flat = W.detach().flatten(1)
    noise = torch.randn(count, flat.shape[1], dtype=flat.dtype, device=flat.device) * sigma
    return ((noise @ flat.t()).t() @ noise).div_(count * sigma**2).view(W.shape)
