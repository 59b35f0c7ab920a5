"""A run that is interrupted and goes on with a copy: of the model as it is, or of what was saved.

    python examples/loops/copies.py
"""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import torch
import torch.nn.functional as F
from digits import batches, error, images, network
from torch import nn

import reclra_compile as rc


def saved(thing: Any, weights_only: bool) -> Any:
    """What comes back from a file."""
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


def copied(model: nn.Module, way: str) -> nn.Module:
    """The same model again, in memory or by way of bytes."""
    if way == "deepcopy":
        return copy.deepcopy(model)
    if way == "pickle":
        return pickle.loads(pickle.dumps(model))  # only what you wrote yourself: unpickling runs code
    if way == "save":
        return saved(model, weights_only=False)
    other = network()
    other = rc.attach(other, images()[:32], "depth1", save_synapses=True)  # the one line
    other.load_state_dict(saved(model.state_dict(), weights_only=True))
    return other


def main(way: str = "deepcopy", epochs: int = 5, steps: int | None = None, wiring: str = "depth1") -> nn.Module:
    """Train on the digits, copy, train the copy as long, and return it; `steps` limits an epoch."""
    torch.manual_seed(0)
    model = network()
    model = rc.attach(model, images()[:32], wiring, save_synapses=way == "state_dict")  # the one line
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for half in (1, 2):
        for _ in range(epochs):
            for x, y in batches(limit=steps):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
        if half == 1:
            model, state = copied(model, way), optimizer.state_dict()
            optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
            optimizer.load_state_dict(state)
    print(f"{way}: test error {error(model):.2f} %")
    return model


if __name__ == "__main__":
    for each in ("deepcopy", "pickle", "save", "state_dict"):
        main(each)
