"""The checkpoint of one process, a file, as it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reclra_compile.train.loop import Run
from reclra_compile.train.named import ORDER, parameter_names


class File:
    """A checkpoint of one process, as a `named.Source`."""

    def __init__(self, path: Path, run: Run) -> None:
        ranks = run.program.peers.count > 1  # of which each needs a part of it alone
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=ranks)
        self.head: dict[str, Any] = state if isinstance(state, dict) else {}
        self._tensors: dict[str, Tensor] | None = None
        self._run = run

    @property
    def names(self) -> list[str]:
        """All tensors' names."""
        return list(self._all())

    def take(self, name: str) -> Tensor:
        """A tensor by its name; raises ValueError where it is missing."""
        if name not in self._all():
            raise ValueError(f"it has no {name}")
        tensor = self._all()[name]
        return tensor.clone() if isinstance(tensor, Tensor) else tensor  # a module's extra state may be anything

    def _all(self) -> dict[str, Tensor]:
        if self._tensors is None:
            self._tensors = self._named()
        return self._tensors

    def _named(self) -> dict[str, Tensor]:
        state = self.head
        names = state.get("names")
        if names is None:
            if self._run.program.peers.count > 1:
                raise ValueError("its optimizer has no names, which ranks need; go on with one process for an epoch")
            own = parameter_names(self._run.program)
            of_groups = [own[id(p)] for group in self._run.optimizer.param_groups for p in group["params"]]
            names = {"parameters": list(own.values()), "optimizer": of_groups}
        found = {f"model/{name}": x for name, x in state["model"].items()}
        found |= {f"synapses/{name}": x for name, x in state["program"]["synapses"].items()}
        for k, kept in state["optimizer"]["state"].items():
            found |= {f"optimizer/{what}/{names['optimizer'][k]}": x for what, x in kept.items() if x is not None}
        before = state["program"].get("before") or ()
        found |= {f"before/{name}": x for name, x in zip(names["parameters"], before, strict=bool(before))}
        found |= {f"random/0/cuda{k}": x for k, x in enumerate(state["random"]["cuda"])}
        return {**found, "random/0/cpu": state["random"]["cpu"], ORDER: state["generator"]}
