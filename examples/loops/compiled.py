"""torch.compile of the whole step: forward pass, targets and updates in one piece of generated code.

    python examples/loops/compiled.py
"""

from __future__ import annotations

import torch
from digits import BATCH, batches, error, images, network
from torch import nn

import reclra_compile as rc


def main(
    epochs: int = 10, steps: int | None = None, wiring: str = "depth1", backend: str = "inductor"
) -> nn.Module:  # fmt: skip
    """Train on the digits and return the model; `steps` limits an epoch. The loss is in the program here."""
    torch.manual_seed(0)
    model = network()
    program = rc.compile(model, images()[:BATCH], wiring)  # cross entropy, unless loss_fn= says another
    step = program.compile_step(backend=backend)  # instead of program.step
    optimizer = torch.optim.AdamW(program.parameters(), lr=2e-3)
    for _ in range(epochs):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            step(x, y)
            optimizer.step()
    print(f"test error {error(model):.2f} %")
    return model


if __name__ == "__main__":
    main()
