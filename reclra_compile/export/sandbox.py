"""Run a step and leave nothing behind: gradients, buffers, random state and D(Θ) are afterwards what they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from reclra_compile.runtime.program import Program


@contextlib.contextmanager
def untouched(program: Program) -> Iterator[None]:
    """Inside there are no gradients yet; afterwards the program is as it was."""
    parameters = [*program.model.parameters(), *program.synapses.parameters()]
    grads = [p.grad for p in parameters]
    buffers = [*program.model.buffers(), *(b for m in program._regions() for b in m.buffers())]
    kept = {id(b): (b, b.detach().clone()) for b in buffers}
    discrepancy = program._discrepancy
    devices = sorted({b.get_device() for b in [*parameters, *buffers] if b.is_cuda})
    for p in parameters:
        p.grad = None
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for p, grad in zip(parameters, grads, strict=True):
            p.grad = grad
        with torch.no_grad():
            for b, value in kept.values():
                b.copy_(value)
        program._discrepancy = discrepancy
