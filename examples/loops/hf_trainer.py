"""Hugging Face's Trainer with a small residual network built from its configuration (needs the extra `transformers`).

    python examples/loops/hf_trainer.py
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
import torch.nn.functional as F
from digits import BATCH, TRAIN, images, labels
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

import reclra_compile as rc


def network() -> ResNetForImageClassification:
    """Two stages of two residual blocks."""
    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2]}
    return ResNetForImageClassification(
        ResNetConfig(num_channels=1, num_labels=10, layer_type="basic", downsample_in_first_stage=False, **sizes)
    )


def pixels() -> Tensor:
    """The images with a channel."""
    return images().view(-1, 1, 8, 8)


def rows(part: slice) -> list[dict[str, Tensor]]:
    """A data set as Trainer wants it."""
    return [{"pixel_values": x, "labels": y} for x, y in zip(pixels()[part], labels()[part], strict=True)]


def mean(outputs: Any, y: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross entropy, over all samples that one step of the optimizer is made from."""
    count = len(y) if num_items_in_batch is None else num_items_in_batch
    return F.cross_entropy(outputs.logits, y, reduction="sum") / count


def main(epochs: int = 3, steps: int = -1, wiring: str = "groups", **options: Any) -> ResNetForImageClassification:
    """Train on the digits and return the model; at most `steps` optimizer steps, all where it is -1."""
    model = network()
    model = rc.attach(model, {"pixel_values": pixels()[:32]}, wiring)  # the one line
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=epochs, max_steps=steps, per_device_train_batch_size=BATCH,
            learning_rate=3e-3, use_cpu=True, report_to="none", save_strategy="no", logging_strategy="no",
            disable_tqdm=True, **options,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=rows(slice(0, TRAIN)), compute_loss_func=mean)
        trainer.train()
        logits = trainer.predict(rows(slice(TRAIN, None))).predictions
    wrong = (torch.as_tensor(logits).argmax(1) != labels()[TRAIN:]).double().mean()
    print(f"test error {100 * wrong:.2f} %")
    return model


if __name__ == "__main__":
    main()
