"""Which regions draw random numbers, and how to let them draw the same ones again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import fx, nn

#: parts of the names of operations that draw; attention draws where it has dropout
_DRAWS = ("drop", "rand", "bernoulli", "multinomial", "normal_", "uniform_", "attention")


def is_random(modules: Sequence[nn.Module]) -> bool:
    """True where a region's code may draw random numbers in training: by dropout, noise, or attention."""
    for module in (m for top in modules for m in top.modules()):
        if any(word in type(module).__name__.lower() for word in _DRAWS):
            return True
        if isinstance(module, fx.GraphModule):
            names = (str(n.target).lower() for n in module.graph.nodes if n.op in ("call_function", "call_method"))
            if any(word in name for name in names for word in _DRAWS):
                return True
        if getattr(module, "dropout", 0.0):  # recurrent layers have it as a number
            return True
    return False


def bound_to_train_mode(modules: Sequence[nn.Module]) -> str | None:
    """The first operation that keeps the train mode it was traced in: dropout or a batch norm as a function."""
    graphs = (m.graph for top in modules for m in top.modules() if isinstance(m, fx.GraphModule))
    for node in (n for graph in graphs for n in graph.nodes if n.op == "call_function"):
        if any(word in str(node.target).lower() for word in ("dropout", "batch_norm")):
            return str(node.name)
    return None


_DRAWING = threading.RLock()  # torch's generators belong to all threads


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's generators start from `seed`; afterwards they are what they were. One thread at a time."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with _DRAWING, torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
