"""What an attached model returns, what it may be called with, its faults, and low precision."""

from __future__ import annotations

import copy
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from test_attach import CLASSES, batch, close, gradients, mlp
from test_attach_model import attached
from torch import Tensor, nn

import reclra_compile as rc


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# Several outputs

Pair = namedtuple("Pair", "a b")


@dataclass
class Both:
    a: Tensor
    b: Tensor
    note: str = "kept"


FORMS = {
    "dict": lambda a, b: {"a": a, "b": b, "no": None},
    "tuple": lambda a, b: (a, [b]),
    "namedtuple": Pair,
    "dataclass": Both,
}


class Heads(nn.Module):
    """Two heads on one trunk: classes, and a yes or no."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.one, self.two, self.form = nn.Linear(6, 8), nn.Linear(8, 8), form
        self.a, self.b = nn.Linear(8, CLASSES), nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x):
        z = torch.relu(self.two(torch.tanh(self.one(x))))
        return FORMS[self.form](self.a(z), self.b(z)[:, 0])


def parts(result):
    if isinstance(result, dict):
        return result["a"], result["b"]
    a, b = (result.a, result.b) if hasattr(result, "a") else result
    return a, b[0] if isinstance(b, list) else b


def both(result, y, times: float = 1.0) -> Tensor:
    a, b = parts(result)
    return (F.cross_entropy(a, y) + 0.3 * F.binary_cross_entropy_with_logits(b, (y > 1).double())) * times


@pytest.mark.parametrize("form", FORMS)
def test_several_outputs_come_in_the_same_form_and_train_by_backprop(form: str) -> None:
    torch.manual_seed(0)
    net = Heads(form)
    twin, (x, y) = copy.deepcopy(net), batch()
    model = rc.attach(net, x, "backprop")
    result, expected = model(x), twin(x)
    assert type(result) is type(expected)
    close([t.detach() for t in parts(result)], [t.detach() for t in parts(expected)])
    both(result, y).backward()
    both(expected, y).backward()
    close(gradients(model), gradients(twin), 1e-9)


@pytest.mark.parametrize("wiring", ["depth1", "depth2", "depth1_local"])
def test_heads_learn_from_their_own_exact_errors(wiring: str) -> None:
    torch.manual_seed(0)
    net = Heads("dict")
    twin, (x, y) = copy.deepcopy(net), batch()
    model = rc.attach(net, x, wiring)
    both(model(x), y).backward()
    both(twin(x), y).backward()
    heads = [*zip(model.a.parameters(), twin.a.parameters(), strict=True),
             *zip(model.b[2].parameters(), twin.b[2].parameters(), strict=True)]  # fmt: skip
    close([p.grad for p, _ in heads], [q.grad for _, q in heads], 1e-9)
    once = gradients(model)
    model.zero_grad()
    both(model(x), y, 512.0).backward()
    close(gradients(model), [g * 512 for g in once])
    with pytest.raises(rc.UserError, match="A004"):
        model.reclra.labels(y)


def test_a_loss_of_one_output_of_several() -> None:
    torch.manual_seed(0)
    net = Heads("dict")
    twin, (x, y) = copy.deepcopy(net), batch()
    model = rc.attach(net, x, "backprop")
    for m in (model, twin):
        F.cross_entropy(m(x)["a"], y).backward()
    close(gradients(model), gradients(twin), 1e-9)
    rc.detach(model)
    chosen = rc.attach(model, x, "depth1", output="a")
    assert chosen(x)["b"] is None
    assert chosen.eval()(x)["b"] is not None


@pytest.mark.parametrize("wiring", ["backprop", "depth1"])
def test_outputs_of_several_shapes_one_of_which_others_read(wiring: str) -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 8)
            self.words, self.kind = nn.Linear(8, 5 * 7), nn.Linear(8, CLASSES)

        def forward(self, x):
            features = torch.tanh(self.one(x))
            z = torch.relu(self.two(features))
            return self.kind(z), features, self.words(z).view(-1, 5, 7)

    def loss(found, y):
        kind, features, words = found
        words = F.cross_entropy(words.reshape(-1, 7), y.repeat_interleave(5))
        return F.cross_entropy(kind, y) + features.square().mean() + words

    torch.manual_seed(0)
    net, (x, y) = Several(), batch()
    twin = copy.deepcopy(net)
    for m in (rc.attach(net, x, wiring), twin):
        loss(m(x), y).backward()
    exact = ["words", "kind"] if wiring == "depth1" else ["one", "two", "words", "kind"]
    for name in exact:
        close(gradients(getattr(net, name)), gradients(getattr(twin, name)), 1e-9)
    assert all(p.grad is not None for p in net.parameters())


def test_outputs_that_cannot_be_joined_are_refused() -> None:
    class Odd(Heads):
        def forward(self, x):
            found = super().forward(x)
            return found | {"best": found["a"].argmax(1)}

    with pytest.raises(rc.ModelError, match=r"A004.*best"):
        rc.attach(Odd("dict"), batch()[0])


# Calls and faults


class Named(nn.Module):
    """Inputs by name, one of which has a default."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, CLASSES)

    def forward(self, left, right=None, labels=None, **kwargs):
        z = self.a(left) if right is None else self.a(left) + self.b(right)
        return {"logits": self.out(torch.tanh(z))}


def test_calls_by_name_and_by_position() -> None:
    x, _ = batch()
    model = rc.attach(Named(), {"left": x, "right": x}, "depth1")
    expected = model(x, x)["logits"]
    for found in (model(x, right=x), model(right=x, left=x), model(x, x, None, num_items_in_batch=3)):
        torch.testing.assert_close(found["logits"], expected)
    with pytest.raises(rc.TrainingError, match=r"A005.*'right'"):
        model(x)
    with pytest.raises(rc.TrainingError, match=r"A005.*'labels'"):
        model(x, x, labels=x)
    with pytest.raises(rc.TrainingError, match="A005"):
        model()


def test_faults_say_what_to_do() -> None:
    x, _ = batch()
    with pytest.raises(rc.UserError, match=r"A001[\s\S]*rc.detach"):
        rc.attach(attached(), x)
    with pytest.raises(rc.UserError, match=r"A001[\s\S]*'0', is attached"):
        rc.attach(nn.Sequential(attached(), nn.Softmax(1)), x)
    with pytest.raises(rc.UserError, match=r"A001[\s\S]*then wrap"):
        rc.attach(nn.DataParallel(mlp()), x)
    with pytest.raises(rc.ModelError, match=r"M010.*\(12, 6\)"):
        rc.attach(nn.Linear(5, 4), x)
    with pytest.raises(rc.UserError, match="A002"):
        rc.detach(mlp())
    with pytest.raises(rc.UserError, match=r"A003[\s\S]*program.step"):
        rc.attach(mlp(), x, "equilibrium_propagation")
    with pytest.raises(rc.UserError, match="A003"):
        rc.attach(mlp(), x, plan=rc.compile(mlp(), x, "depth1", microbatches=2).plan)
    with pytest.raises(rc.UserError, match=r"A004[\s\S]*returns"):
        rc.attach(mlp(), x, loss_fn={"logits": F.cross_entropy})


def test_the_program_of_an_attached_model_steps_too() -> None:
    x, y = batch()
    model, program = attached(), rc.compile(mlp(), x, "depth1")
    assert torch.equal(model.reclra.program.step(x, y), program.step(x, y))
    close(gradients(model), [p.grad for p in program.parameters()])
    rates = model.reclra.program.rated_parameters()["readout_rate"]
    own = set(map(id, model.reclra.synapses.parameters()))
    assert rates and {id(p) for p in rates} <= own


# Low precision


def test_autocast_as_in_the_program() -> None:
    x, y = (t.float() if t.is_floating_point() else t for t in batch())
    program = rc.compile(mlp().float(), x, "depth1")
    model = rc.attach(mlp().float(), x, "depth1")
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x)
        loss = F.cross_entropy(output, y)
        program.step(x, y)
    assert output.dtype == torch.bfloat16
    loss.backward()
    close(gradients(model), [p.grad for p in program.parameters()], 2e-2)


def test_an_overflow_of_a_gradient_scaler_comes_through() -> None:
    x, y = (t.float() if t.is_floating_point() else t for t in batch())
    model = rc.attach(mlp().float(), x, "depth1")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert scaler.get_scale() == 2.0**125

