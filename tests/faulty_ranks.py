"""A small model with data of its own, whose loss does on one rank what the environment says."""

from __future__ import annotations

#: FAULT=what:when[:rank] happens at that call of the loss, which the last stage computes, before any restart
MODEL = '''
import os
import signal

import torch
from torch import nn
from torch.nn import functional as F

SIZES = (12, 24, 20, 16, 5)
calls = 0


def build_model():
    layers = []
    for a, b in zip(SIZES, SIZES[1:]):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def data():
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(88, 12, generator=draw, dtype=torch.float64)
    y = (x[:, :5] + 0.3 * torch.randn(88, 5, generator=draw)).argmax(1)
    return {"train": (x[:64], y[:64]), "test": (x[64:], y[64:])}


def loss_fn(output, target):
    global calls
    what, _, when = os.environ.get("FAULT", "").partition(":")
    loss = F.cross_entropy(output, target)
    if not what or os.environ.get("RANK") != "1" or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return loss
    calls += 1
    if calls != int(when):
        return loss
    if what in ("KILL", "STOP"):
        os.kill(os.getpid(), getattr(signal, f"SIG{what}"))
    if what == "loop":
        while True:
            pass
    if what == "raise":
        raise ZeroDivisionError("of the user's own")
    if what == "full":
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    return loss * float("nan") if what == "nan" else loss


if os.environ.get("FAULT") == "other:0" and os.environ.get("RANK") == "1":
    SIZES = (12, 24, 21, 16, 5)
example_inputs = torch.zeros(16, 12, dtype=torch.float64)
'''
