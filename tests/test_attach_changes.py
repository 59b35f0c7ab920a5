"""Models that change after they were attached, are sharded, are used by several threads, or have idle heads."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from test_attach import batch, gradients, mlp
from test_attach_calls import Heads
from torch import nn
from torch.nn.utils import prune

import reclra_compile as rc


def frozen() -> nn.Sequential:
    net = mlp()
    net[0].requires_grad_(False)
    return net


def add(m: nn.Module) -> None:
    m[2].more = nn.Parameter(torch.ones(3))


CHANGES = {
    "'4' has been replaced": (mlp, lambda m: m.__setitem__(4, nn.Linear(8, 7))),
    "'1' has been replaced": (mlp, lambda m: m.__setitem__(1, nn.GELU())),
    "'2.more' has been added": (mlp, add),
    "'5.weight' has been added": (mlp, lambda m: m.append(nn.Linear(4, 4))),
    "'0.weight' was frozen": (frozen, lambda m: m[0].requires_grad_()),
    "'2.weight' is not there any more": (mlp, lambda m: prune.l1_unstructured(m[2], "weight", 0.5)),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_model_that_is_not_what_the_plan_was_made_for_is_refused(message: str) -> None:
    make, change = CHANGES[message]
    x, y = batch()
    model = rc.attach(make(), x, "backprop")
    F.cross_entropy(model(x), y).backward()
    change(model)
    with pytest.raises(rc.TrainingError, match=rf"A011.*{message}[\s\S]*rc\.detach"):
        model(x)
    with pytest.raises(rc.TrainingError, match="A011"):
        model.reclra.program.step(x, y)


def test_what_does_not_learn_may_be_added() -> None:
    x, y = batch()
    model = rc.attach(mlp(), x, "backprop")
    model[0].note = nn.CrossEntropyLoss()
    for _ in range(2):
        model[0].note(model(x), y).backward()


def test_sharded_models_are_refused() -> None:
    x, _ = batch()
    model = rc.attach(mlp(), x, "backprop")
    for m in model:
        m._is_fsdp_managed_module = True  # as torch.distributed.fsdp has it
    with pytest.raises(rc.TrainingError, match=r"A009.*Sequential[\s\S]*DistributedDataParallel"):
        model(x)
    with pytest.raises(rc.UserError, match="A009"):
        rc.attach(rc.detach(model), x)


def test_threads_that_share_a_model_take_turns() -> None:
    model, found, failed = rc.attach(mlp(), batch()[0], "depth1"), {}, []
    learned = list(model.parameters())

    def run(seed: int) -> None:
        x, y = batch(seed)
        try:
            for _ in range(10):
                found[seed] = torch.autograd.grad(F.cross_entropy(model(x), y), learned)
        except Exception as error:
            failed.append(error)

    run(0), run(1)
    expected = dict(found)
    threads = [threading.Thread(target=run, args=(k,)) for k in (0, 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not failed
    for seed, grads in expected.items():
        assert all(torch.equal(a, b) for a, b in zip(grads, found[seed], strict=True))


@pytest.mark.parametrize("wiring", ["backprop", "depth1"])
def test_a_head_without_a_loss_has_no_gradient(wiring: str) -> None:
    torch.manual_seed(0)
    x, y = batch()
    model = rc.attach(Heads("dict"), x, wiring)
    F.cross_entropy(model(x)["a"], y).backward()
    idle = model.b if wiring == "backprop" else model.b[2]  # errors of all outputs reach the rest
    assert all(g is None for g in gradients(idle))
    assert all(g is not None for part in (model.a, model.one, model.two) for g in gradients(part))


class Register(nn.Module):
    """Every subclass has to say a name."""

    def __init_subclass__(cls, name: str, **options) -> None:
        super().__init_subclass__(**options)

    def forward(self, x):
        return self.net(x)


class Named(Register, name="one"):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()


def test_classes_that_watch_their_subclasses_and_that_change() -> None:
    x, _ = batch()
    model = rc.attach(Named(), x, "backprop")
    model.__class__ = type("Wrapped", (type(model),), {})
    with pytest.raises(rc.UserError, match=r"A011.*class of this Wrapped"):
        rc.detach(model)
    model.__class__ = type(model).__mro__[1]
    assert type(rc.detach(model)) is Named


def test_attaching_leaves_buffers_as_they_are() -> None:
    """A spectral norm changes its vectors in each forward pass."""
    x, y = batch()
    net = mlp()
    nn.utils.parametrizations.spectral_norm(net[2])
    twin = copy.deepcopy(net)
    model = rc.attach(net, x, "backprop")
    for a, b in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b)
    for m in (model, twin):
        F.cross_entropy(m(x), y).backward()
    for a, b in zip(gradients(model), gradients(twin), strict=True):
        torch.testing.assert_close(a, b)
