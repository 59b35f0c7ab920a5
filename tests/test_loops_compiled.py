"""torch.compile in a training loop: of a program's step, and of a model that is attached."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loops import adamw, assert_equal, compiled, double, follow, loop, weights
from torch import nn

import reclra_compile as rc

STEPS = 4


# torch's own inductor still uses what torch deprecates
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_compiled_step_trains_as_the_step(backend: str) -> None:
    with double():
        model = loop("compiled").main(epochs=1, steps=STEPS, backend=backend)
        program = compiled("depth1")
        follow(program, adamw(program), loop("digits").batches(limit=STEPS))
    assert_equal(weights(model), weights(program.model))


def trained(wrap, digits, **options) -> tuple[nn.Module, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = rc.attach(digits.network(), digits.images()[:32], "depth2", **options)
    wrapped = wrap(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    for x, y in digits.batches(limit=STEPS):
        optimizer.zero_grad()
        F.cross_entropy(wrapped(x), y).backward()
        optimizer.step()
    wrapped.eval()
    with torch.no_grad():
        wrapped(x)
    return model, [p.detach() for p in model.parameters()]


def test_an_attached_model_in_torch_compile_runs_as_it_is() -> None:
    """Dynamo leaves calls of it to Python, in training and in evaluation."""
    seen: list[int] = []

    def backend(graph, example_inputs):
        seen.append(len(graph.graph.nodes))
        return graph.forward

    digits = loop("digits")
    with double():
        _, plain = trained(lambda m: m, digits)
        _, wrapped = trained(lambda m: torch.compile(m, backend=backend), digits)
    assert all(torch.equal(p, q) for p, q in zip(plain, wrapped, strict=True))
    assert not seen, "nothing was compiled"


def test_wrappers_come_after_attach() -> None:
    digits = loop("digits")
    with pytest.raises(rc.UserError, match="A001"):
        rc.attach(torch.compile(digits.network(), backend="eager"), digits.images()[:32], "depth1")
