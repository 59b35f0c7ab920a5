"""A training loop of one's own over several processes.

    torchrun --nproc-per-node 2 examples/own_loop.py
    torchrun --nproc-per-node 4 examples/own_loop.py        # two replicas of two stages
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

import reclra_compile as rc

STAGES, EPOCHS, BATCH = 2, 5, 64


def main() -> None:
    """Train on the digits; the first rank prints."""
    torch.manual_seed(0)  # the same on every rank: weights, order of samples, dropout
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    train, test = slice(0, 1437), slice(1437, None)

    mesh = rc.connect(STAGES)
    program = rc.compile(model, x[:BATCH], "depth1", devices=STAGES, microbatches=4, mesh=mesh)
    optimizer = torch.optim.AdamW([{"params": list(program.parameters())}], lr=2e-3)  # a rank may hold nothing
    for epoch in range(EPOCHS):
        model.train()
        losses = 0.0
        order = torch.randperm(train.stop).split(BATCH)
        for index in order:
            optimizer.zero_grad()
            losses += float(program.step(x[index], y[index]))  # this rank's part of it
            program.clip(1.0)  # by the norm over all ranks
            optimizer.step()
        program.settle_buffers()
        model.eval()
        output = program.predict(x[test])  # None but where the loss is
        wrong = 0.0 if output is None else float((output.argmax(1) != y[test]).sum())
        loss, wrong = program.peers.total([losses / len(order), wrong])
        if mesh.rank == 0:
            print(f"epoch {epoch + 1}: loss {loss:.4f}, test error {100 * wrong / len(y[test]):.2f} %")
    mesh.close()


if __name__ == "__main__":
    main()
