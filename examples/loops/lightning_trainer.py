"""Lightning's Trainer (needs the extra `lightning`).

    python examples/loops/lightning_trainer.py
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from digits import BATCH, TRAIN, error, images, labels, network
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import reclra_compile as rc


class Digits(lightning.LightningModule):
    """A network and how it learns. To attach only the network inside is as good."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        x, y = batch
        self.log("error", 100 * (self(x).argmax(1) != y).double().mean(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def loader(rows: slice, **options: Any) -> DataLoader[Any]:
    """Batches of the digits in these rows."""
    return DataLoader(TensorDataset(images()[rows], labels()[rows]), batch_size=BATCH, **options)


def main(epochs: int = 10, steps: int = -1, wiring: str = "depth1", **options: Any) -> Digits:
    """Train on the digits and return the model; at most `steps` optimizer steps, all where it is -1."""
    lightning.seed_everything(0, verbose=False)
    model = Digits(network())
    model = rc.attach(model, images()[:32], wiring)  # the one line
    trainer = lightning.Trainer(
        max_epochs=epochs, max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **{"devices": 1} | options,
    )  # fmt: skip
    trainer.fit(model, loader(slice(0, TRAIN)), loader(slice(TRAIN, None)))
    print(f"test error {error(model):.2f} %")
    return model


if __name__ == "__main__":
    main()
