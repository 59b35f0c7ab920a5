"""Programs in double precision for the tests of step graphs, and what has to be the same of a graph and a step."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from models import MLP
from torch import nn

import reclra_compile as rc

WIRINGS = ("backprop", "depth1", "depth2", "blocks", "groups", "feedback_alignment")


def small(name: str):
    """A model in double precision with inputs and labels; "normed" draws, normalises and pools."""
    torch.manual_seed(3)
    if name == "mlp":
        return MLP(3).double(), (torch.randn(6, 6).double(),), torch.randint(3, (6,))
    if name == "normed":
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3),
            nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3),
        )  # fmt: skip
        return model.double(), (torch.randn(4, 2, 8, 8).double(),), torch.randint(3, (4,))
    model, inputs = ARCHITECTURES[name]()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    with torch.no_grad():
        y = torch.randn_like(copy.deepcopy(model.double())(*inputs))
    return model, inputs, y


def compiled(name: str, wiring: str = "depth1", **options):
    model, inputs, y = small(name)
    if wiring == "groups":
        options["granularity"] = "groups=2"
    loss_fn = options.pop("loss_fn", F.mse_loss if y.is_floating_point() else F.cross_entropy)
    return rc.compile(model, inputs, wiring, loss_fn=loss_fn, **options), (*inputs, y)


def named(program: rc.Program) -> dict[str, nn.Parameter]:
    synapses = dict(program.synapses.named_parameters())
    own = {id(p) for p in synapses.values()}  # which an attached model names as well
    return {name: p for name, p in program.model.named_parameters() if id(p) not in own} | synapses


def grads_of(program: rc.Program) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in named(program).items() if p.grad is not None}


def same(program: rc.Program, graph, batch, tolerance: float = 1e-12, draws: bool = True) -> None:
    """Graph and step, from one state, give the same loss, gradients, buffers and (with `draws`) random state."""
    before, random = copy.deepcopy(dict(program.model.named_buffers())), torch.get_rng_state()
    loss, grads = graph(*batch)
    after, moved = copy.deepcopy(dict(program.model.named_buffers())), torch.get_rng_state()
    assert not grads_of(program) and not loss.requires_grad
    for name, b in program.model.named_buffers():
        b.copy_(before[name])
    torch.set_rng_state(random)
    expected = program.step(*batch)
    steps = grads_of(program)
    program.zero_grad()
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
    assert list(grads) == [name for name in named(program) if name in steps]
    for name, grad in grads.items():
        torch.testing.assert_close(grad, steps[name], rtol=tolerance, atol=tolerance, msg=name)
    for name, b in program.model.named_buffers():
        torch.testing.assert_close(b, after[name], rtol=tolerance, atol=tolerance, msg=name)
    if draws:
        assert torch.equal(moved, torch.get_rng_state())


def steps_alike(program: rc.Program, step, batches, tolerance: float) -> None:
    """`step` gives the loss of program.step and adds the same gradients, batch after batch."""
    for batch in batches:
        program.zero_grad()
        for _ in range(2):
            expected = program.step(*batch)
        wanted = grads_of(program)
        program.zero_grad()
        for _ in range(2):
            loss = step(*batch)
        torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
        got = grads_of(program)
        assert list(got) == list(wanted) and not loss.requires_grad
        for name in wanted:
            torch.testing.assert_close(got[name], wanted[name], rtol=tolerance, atol=tolerance, msg=name)
