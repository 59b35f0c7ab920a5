"""What a training loop, a library or a checkpoint does with a model goes on working when it is attached."""

from __future__ import annotations

import copy
import io
import pickle
import weakref

import pytest
import torch
import torch.nn.functional as F
from test_attach import CLASSES, batch, close, gradients, mlp
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import reclra_compile as rc
from reclra_compile.integrate.backward import Pass


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def attached(wiring: str = "depth1", **options) -> nn.Sequential:
    return rc.attach(mlp(), batch()[0], wiring, **options)


def backward(model: nn.Module, seed: int = 0) -> list[Tensor | None]:
    """The gradients of one batch."""
    x, y = batch(seed)
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    return gradients(model)


# Autograd


def test_hooks_fire_once_with_the_whole_gradient() -> None:
    model, seen = attached("depth2"), {}
    for name, p in model.named_parameters():
        p.register_post_accumulate_grad_hook(lambda p, name=name: seen.setdefault(name, []).append(p.grad.clone()))
        p.register_hook(lambda g: g * 2)
    found = backward(model)
    assert {len(grads) for grads in seen.values()} == {1}
    assert set(seen) == {name for name, _ in model.named_parameters()}
    close([seen[name][0] for name, _ in model.named_parameters()], found)
    close(found, [g * 2 for g in backward(attached("depth2"))])


@pytest.mark.parametrize("wiring", ["depth1", "backprop"])
def test_two_forward_passes_before_one_backward_pass(wiring: str) -> None:
    model = attached(wiring)
    first, second = backward(model, 0), backward(model, 1)
    model.zero_grad()
    (x, y), (u, v) = batch(0), batch(1)
    a, b = model(x), model(u)
    (F.cross_entropy(a, y) + F.cross_entropy(b, v)).backward()
    close(gradients(model), [g + h for g, h in zip(first, second, strict=True)])


def test_a_second_backward_pass_is_refused() -> None:
    model, (x, y) = attached(), batch()
    loss = F.cross_entropy(model(x), y)
    loss.backward(retain_graph=True)
    with pytest.raises(rc.TrainingError, match="A006"):
        loss.backward()


def test_weights_that_change_before_the_backward_pass_are_noticed() -> None:
    model, (x, y) = attached(), batch()
    loss = F.cross_entropy(model(x), y)
    with torch.no_grad():
        model[2].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_evaluation_between_forward_and_backward_changes_nothing() -> None:
    model, (x, y) = attached(), batch()
    expected = backward(model)
    model.zero_grad()
    output = model(x)
    with torch.no_grad():
        same = model(x)
    torch.testing.assert_close(model.eval()(x), output)
    model.train()
    torch.testing.assert_close(same, output)
    F.cross_entropy(output.div_(1.0), y).backward()  # in place, as a loop may
    close(gradients(model), expected)


def test_a_forward_pass_without_a_backward_pass_frees_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    found, run = [], Pass.run
    monkeypatch.setattr(Pass, "run", lambda self, inputs: (found.append(weakref.ref(self)), run(self, inputs))[1])
    output = attached()(batch()[0])
    assert output.requires_grad and found[0]() is not None
    del output
    assert found[0]() is None


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_around_the_model(reentrant: bool) -> None:
    model, (x, y) = attached(), batch()
    expected = backward(model)
    model.zero_grad()
    given = x.requires_grad_() if reentrant else x
    F.cross_entropy(checkpoint(model.__call__, given, use_reentrant=reentrant), y).backward()
    close(gradients(model), expected)


def test_inputs_get_the_gradients_of_backprop_where_they_want_them() -> None:
    x, y = batch()
    model, twin = attached("backprop"), mlp()
    grads = []
    for m in (model, twin):
        given = x.clone().requires_grad_()
        F.cross_entropy(m(given), y).backward()
        grads.append(given.grad)
    close(grads[:1], grads[1:], 1e-9)
    model = attached("depth1")  # the first region's own error, back through its layer
    given = x.clone().requires_grad_()
    F.cross_entropy(model(given), y).backward()
    torch.testing.assert_close(given.grad.sum(0), model[0].bias.grad @ model[0].weight)
    frozen = mlp()
    frozen[0].requires_grad_(False)
    frozen = rc.attach(frozen, x, "depth1")
    with pytest.raises(rc.TrainingError, match="A008"):
        frozen(given)


# The model as an object


def test_it_is_the_same_model_to_everybody_else() -> None:
    plain, (x, _) = mlp(), batch()
    keys = list(plain.state_dict())
    model = rc.attach(plain, x, "depth1")
    assert model is plain and isinstance(model, nn.Sequential) and len(model) == 5
    assert type(model).__name__ == "Sequential" and type(model).__module__ == nn.Sequential.__module__
    assert list(model.state_dict()) == keys
    model.load_state_dict(mlp().state_dict())
    names = [n for n, _ in model.named_parameters()]
    assert names[: len(keys)] == keys and names[len(keys)].startswith("reclra.")
    assert len(names) == len(set(map(id, model.parameters())))
    assert all(model.get_parameter(name) is p for name, p in model.named_parameters())
    model.to(torch.float32)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(g is not None and g.dtype == torch.float32 for g in _float_backward(model))
    assert rc.detach(model) is plain
    assert type(plain) is nn.Sequential and not hasattr(plain, "reclra") and len(list(plain.parameters())) == len(keys)


def _float_backward(model: nn.Module) -> list[Tensor | None]:
    x, y = batch()
    F.cross_entropy(model(x.float()), y).backward()
    return gradients(model)


def test_weights_may_be_replaced_and_loaded() -> None:
    model, other = attached(), mlp()
    for p in other.parameters():
        p.data = p.data * 0.5
    expected = backward(rc.attach(copy.deepcopy(other), batch()[0], "depth1"))
    model.load_state_dict(other.state_dict(), assign=True)
    close(backward(model), expected)
    for p in model[2].parameters():
        p.data = p.data * 1.0
    model[0].requires_grad_(False)
    found = backward(model)
    assert found[0] is None and found[1] is None
    close(found[2:], expected[2:])


def test_buffers_that_forward_reads_follow_the_model() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()
            self.register_buffer("scale", torch.tensor(2.0))

        def forward(self, x):
            return self.net(x * self.scale)

    x, _ = batch()
    model = rc.attach(Scaled(), x, "depth1").to(torch.float32)
    with torch.no_grad():
        model.scale.fill_(3.0)
    assert model(x.float()).dtype == torch.float32
    torch.testing.assert_close(model(x.float()), model.eval()(x.float()))


def test_layers_in_eval_mode_stay_there() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(inplace=True), nn.Linear(8, CLASSES))
    twin, (x, y) = copy.deepcopy(net), batch()
    for m in (rc.attach(net, x, "backprop"), twin):
        m[1].eval()
        m[3].eval()
        F.cross_entropy(m(x), y).backward()
    close(gradients(net), gradients(twin), 1e-9)
    assert torch.equal(net[1].running_mean, twin[1].running_mean)


def test_synapses_are_saved_with_the_model_or_apart() -> None:
    model, other = attached(save_synapses=True), attached(seed=5)
    backward(model)
    torch.optim.SGD(model.parameters(), 1.0).step()
    saved = model.state_dict()
    assert any(k.startswith("reclra.") for k in saved)
    other.load_state_dict(saved)
    close(backward(other), backward(model))
    third = attached(seed=7)
    third.load_state_dict(mlp().state_dict())
    third.reclra.load_state_dict(model.reclra.state_dict())
    close([p.detach() for p in third.reclra.synapses.parameters()],
          [p.detach() for p in model.reclra.synapses.parameters()])  # fmt: skip
    with pytest.raises(rc.PlanError, match="P011"):
        rc.attach(mlp(3), batch()[0], "depth1").reclra.load_state_dict(model.reclra.state_dict())


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved])
def test_copies_train_on_their_own_and_alike(copied) -> None:
    model = attached("depth2")
    twin = copied(model)
    assert isinstance(twin, nn.Sequential) and type(twin) is type(model)
    expected = backward(model)
    torch.optim.SGD(model.parameters(), 0.1).step()
    close(backward(twin), expected)
    torch.optim.SGD(twin.parameters(), 0.1).step()
    close([p.detach() for p in twin.parameters()], [p.detach() for p in model.parameters()])
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in model.parameters()}
    rc.detach(twin)
    backward(model)


def test_averages_of_the_model() -> None:
    model = attached()
    mean = AveragedModel(model)
    for seed in range(2):
        backward(model, seed)
        torch.optim.SGD(model.parameters(), 0.5).step()
        mean.update_parameters(model)
    x, _ = batch()
    assert mean.module.eval()(x).shape == (len(x), CLASSES)
    assert not torch.equal(mean.module[0].weight, model[0].weight)


def test_parts_of_a_model_are_attached_too() -> None:
    """The attached model is a submodule of another, whose state_dict and parameters see to it."""
    outer = nn.ModuleDict({"net": attached(save_synapses=True)})
    names = [n for n, _ in outer.named_parameters()]
    assert any(n.startswith("net.reclra.") for n in names)
    assert set(names) == set(outer.state_dict())
    outer.load_state_dict({f"net.{k}": v for k, v in mlp().state_dict().items()})
    outer.load_state_dict(outer.state_dict())
    with pytest.raises(RuntimeError, match="nonsense"):
        outer.load_state_dict({**outer.state_dict(), "net.nonsense": torch.zeros(1)})
