"""Mixed precision: autocast, and a GradScaler for float16.

    python examples/loops/amp.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from digits import batches, error, images, network
from torch import nn

import reclra_compile as rc


def main(
    dtype: torch.dtype = torch.bfloat16, scale: bool = True, epochs: int = 10, steps: int | None = None,
    wiring: str = "depth1",
) -> nn.Module:  # fmt: skip
    """Train on the digits and return the model; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = network()
    model = rc.attach(model, images()[:32], wiring)  # the one line
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler("cpu", enabled=scale)
    for _ in range(epochs):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            with torch.amp.autocast("cpu", dtype):
                loss = F.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
    print(f"{dtype}: test error {error(model):.2f} %")
    return model


if __name__ == "__main__":
    main(torch.bfloat16)
    main(torch.float16)
