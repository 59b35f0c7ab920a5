"""A target rule and a synapse update of one's own, and a model to train with them.

    reclra-compile train examples/own_rule.py --wiring examples/own_rule.yaml --compare depth1
"""

import torch
from mlp_digits import build_model as build_model

import reclra_compile as rc


@rc.register_target("sign_step")
def sign_step(h, d, phi, beta):
    """y = φ(h − β sign(d)): every unit is asked for a step of one size."""
    return phi(h - beta * d.sign())


@rc.register_update("slow_readout", readout=True)
def slow_readout(z, r):
    """The read-out's own gradient (E9), with each sample's activity scaled to length 1."""
    return z / z.norm(dim=1, keepdim=True).clamp_min(1e-6), r


def example_inputs() -> torch.Tensor:
    return torch.zeros(64, 64)
