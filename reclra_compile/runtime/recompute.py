"""Run a region's forward pass a second time, for its weight update, exactly as it ran the first time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def first_run(
    run: Callable[..., Any], inputs: Sequence[Any], module: nn.Module
) -> tuple[Any, Callable[[], tuple[Any, ...]]]:
    """The result of `run(*inputs)` without a graph, and a function that makes it again with one.

    `module` is what `run` calls. The second run draws the same random numbers (dropout masks), works on copies
    of the buffers (batch statistics) and leaves the random state as it is.
    """
    device = next((x.device for x in inputs if isinstance(x, Tensor)), torch.device("cpu"))
    state = random_state(device)
    with torch.no_grad():
        result = run(*inputs)
    precision = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)

    def again() -> tuple[Any, ...]:
        copies = {name: b.clone() for name, b in module.named_buffers()}
        on, dtype = precision
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            set_random_state(device, state)
            with torch.enable_grad(), torch.autocast(device.type, dtype, enabled=on):
                second = torch.func.functional_call(module, copies, tuple(inputs))
        return second if isinstance(second, tuple) else (second,)

    return result, again


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The state of torch's global generators: the CPU's and, on CUDA, the device's."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    """Put a state of `random_state` back."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
