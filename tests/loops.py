"""What the tests of training loops share: the loops' modules, runs by `program.step`, and what has to be equal."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import reclra_compile as rc

LOOPS = Path(__file__).parent.parent / "examples" / "loops"
TOLERANCE = 1e-6


def loop(name: str) -> Any:
    """The module of a loop, which imports `digits` from its own folder."""
    if str(LOOPS) not in sys.path:
        sys.path.insert(0, str(LOOPS))
    return importlib.import_module(name)


@contextlib.contextmanager
def double() -> Iterator[None]:
    """Inside, models and data are float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def unattached(main: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The loop without its one line."""
    kept = rc.attach
    rc.attach = lambda model, *a, **k: model
    try:
        return main(*args, **options)
    finally:
        rc.attach = kept


def compiled(
    wiring: str, make: Callable[[], nn.Module] | None = None, loss_fn: Any = F.cross_entropy
) -> rc.Program:  # fmt: skip
    """The program that does what the attached model does; the model is made after torch's seed is set."""
    torch.manual_seed(0)
    model = make() if make else loop("digits").network()
    return started(rc.compile(model, loop("digits").images()[:32], wiring, loss_fn=loss_fn))


def started(program: rc.Program) -> rc.Program:
    """The program, with a note of what its synapses start from."""
    program.start = [p.detach().clone() for p in program.synapses.parameters()]
    return program


def adamw(program: rc.Program, lr: float = 2e-3) -> torch.optim.AdamW:
    """The optimizer of most loops."""
    return torch.optim.AdamW(program.parameters(), lr=lr)


def follow(program: rc.Program, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """One optimizer step for each batch."""
    for x, y in batches:
        optimizer.zero_grad()
        program.step(x, y)
        optimizer.step()


@contextlib.contextmanager
def every_step(program: rc.Program, take: Callable[[], None]) -> Iterator[list[float]]:
    """Compares the gradients that any optimizer gets with those that `take` leaves at the program's parameters.

    In every step they are of the same weights. In low precision the weights after several steps would be a worse test:
    where a number is between two that can be stored, the last bit of another order of summing decides. Gives the
    largest gradient of each step so far.
    """
    own = [*program.model.parameters(), *program.synapses.parameters()]
    largest: list[float] = []

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        with torch.no_grad():
            for p, q in zip(own, optimizer.param_groups[0]["params"], strict=True):
                p.copy_(q)
        program.zero_grad()
        take()

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:  # gradients may come only within the step
        learning = optimizer.param_groups[0]["params"]
        assert_equal(*({str(k): p.grad for k, p in enumerate(ps)} for ps in (learning, own)))
        largest.append(max(float(p.grad.abs().max()) for p in own))

    handles = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    try:
        yield largest
    finally:
        for handle in handles:
            handle.remove()


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's own parameters and buffers."""
    return {k: v.detach().clone() for k, v in model.state_dict().items() if not k.startswith("reclra.")}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    """Every tensor of the one is there in the other, and as large to the tolerance."""
    assert list(found) == list(expected)
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        far = float((value.double() - expected[name].double()).abs().max()) if value.numel() else 0.0
        assert far <= tolerance, f"{name}: {far:.2e} apart"


def assert_same(model: nn.Module, program: rc.Program, tolerance: float = TOLERANCE) -> None:
    """The attached model and its synapses are the program's, and the synapses have learned."""
    assert_equal(weights(model), weights(program.model), tolerance)
    synapses = {k: v.detach() for k, v in program.synapses.named_parameters()}
    assert_equal({k: v.detach() for k, v in model.reclra.synapses.named_parameters()}, synapses, tolerance)
    for (name, now), then in zip(synapses.items(), program.start, strict=True):
        assert not torch.allclose(now, then.to(now.dtype)), f"{name} has not learned"
