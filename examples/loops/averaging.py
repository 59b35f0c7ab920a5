"""Averages of the weights: equal ones at the end (SWA), or exponentially fading ones (EMA).

    python examples/loops/averaging.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from digits import batches, error, images, network
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

import reclra_compile as rc


def main(kind: str = "ema", epochs: int = 10, steps: int | None = None, wiring: str = "depth1") -> AveragedModel:
    """Train on the digits and return the averaged model; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = network(normalize=True)
    model = rc.attach(model, images()[:32], wiring)  # the one line
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98) if kind == "ema" else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scheduler = SWALR(optimizer, swa_lr=1e-3, anneal_epochs=epochs)
    for epoch in range(epochs):
        for x, y in batches(limit=steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            if kind == "ema":
                averaged.update_parameters(model)
        if kind == "swa" and epoch >= epochs // 2:
            averaged.update_parameters(model)
        scheduler.step()
    update_bn(batches(limit=steps), averaged)  # the statistics of batch normalization are not averaged
    print(f"{kind}: test error {error(model):.2f} %, averaged {error(averaged):.2f} %")
    return averaged


if __name__ == "__main__":
    main("ema")
    main("swa")
