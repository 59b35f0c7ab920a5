"""Hugging Face Accelerate (needs the extra `accelerate`).

    python examples/loops/accelerate_loop.py
    torchrun --nproc-per-node 2 examples/loops/accelerate_loop.py
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from digits import BATCH, TRAIN, error, images, labels, network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import reclra_compile as rc


def main(epochs: int = 10, steps: int | None = None, wiring: str = "depth1", **options: Any) -> nn.Module:
    """Train on the digits and return the model; `steps` limits an epoch's batches, `options` are Accelerator's."""
    accelerator = Accelerator(cpu=True, **options)
    torch.manual_seed(0)
    model = network()
    model = rc.attach(model, images()[:32], wiring)  # the one line
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loader = DataLoader(TensorDataset(images()[:TRAIN], labels()[:TRAIN]), batch_size=BATCH)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for _ in range(epochs):
        for k, (x, y) in enumerate(loader):
            if k == steps:
                break
            with accelerator.accumulate(model):
                loss = F.cross_entropy(model(x), y)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    trained: nn.Module = accelerator.unwrap_model(model)
    accelerator.print(f"test error {error(trained):.2f} %")
    return trained


if __name__ == "__main__":
    main()
