"""A model that is attached trains in a plain loop exactly as its program does: gradients, weights and synapses."""

from __future__ import annotations

import copy
import functools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo import ZOO

import reclra_compile as rc

N, CLASSES = 12, 4


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(name: str):
    """A model of the zoo in float64, with inputs and labels."""
    torch.manual_seed(3)
    model, inputs = ZOO[name]()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    return model.double(), inputs, torch.randint(CLASSES, (len(inputs[0]),))


def mlp(out: int = CLASSES) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, out))


def batch(seed: int = 0, n: int = N):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=g), torch.randint(CLASSES, (n,), generator=g)


def gradients(model: nn.Module):
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def close(found, expected, tolerance: float = 1e-6) -> None:
    for a, b in zip(found, expected, strict=True):
        if a is None or b is None:
            assert (a is None or not a.any()) and (b is None or not b.any())
        else:
            assert float((a - b).norm()) <= tolerance * max(1e-9, float(b.norm()))


def follow(model, program, inputs, y, loop_loss, steps: int = 3, lr: float = 1e-2) -> None:
    """Steps of the plain loop beside steps of the program: gradients and then weights and synapses are the same."""
    ours = torch.optim.Adam(model.parameters(), lr)
    theirs = torch.optim.Adam(program.parameters(), lr)
    for step in range(steps):
        torch.manual_seed(step)
        ours.zero_grad()
        loop_loss(model(*inputs), y).backward()
        torch.manual_seed(step)
        theirs.zero_grad()
        program.step(*inputs, y)
        close([p.grad for p in model.parameters()], [p.grad for p in program.parameters()])
        ours.step()
        theirs.step()
    close([p.detach() for p in model.parameters()], [p.detach() for p in program.parameters()])
    close([b.double() for b in model.buffers()], [b.double() for b in program.model.buffers()])


MODELS = ["residual", "branches", "batch_norm_and_dropout", "conv_residual", "embeddings", "two_inputs", "functional",
          "frozen_layer", "tied_transpose"]  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_backprop_equals_autograd(name: str) -> None:
    model, inputs, y = build(name)
    twin = copy.deepcopy(model)
    assert rc.attach(model, inputs, "backprop") is model
    for step in range(2):
        torch.manual_seed(step)
        F.cross_entropy(model(*inputs), y).backward()
        torch.manual_seed(step)
        F.cross_entropy(twin(*inputs), y).backward()
    close(gradients(model), gradients(twin), 1e-10)
    close([b.double() for b in model.buffers()], [b.double() for b in twin.buffers()])


@pytest.mark.parametrize("wiring", ["depth1", "depth2", "blocks", "depth1_local", "kolen_pollack"])
@pytest.mark.parametrize("name", ["residual", "conv_residual"])
def test_steps_of_the_loop_are_steps_of_the_program(name: str, wiring: str) -> None:
    model, inputs, y = build(name)
    program = rc.compile(copy.deepcopy(model), inputs, wiring)
    follow(rc.attach(model, inputs, wiring), program, inputs, y, F.cross_entropy)


@pytest.mark.slow
@pytest.mark.parametrize("wiring", [w for w in rc.shipped() if w != "equilibrium_propagation"])
@pytest.mark.parametrize("name", ["residual", "conv_residual"])
def test_every_shipped_wiring_steps_alike_and_undoes_the_factor(name: str, wiring: str) -> None:
    model, inputs, y = build(name)
    program = rc.compile(copy.deepcopy(model), inputs, wiring)
    rc.attach(model, inputs, wiring)
    torch.manual_seed(1)
    (F.cross_entropy(model(*inputs), y) * 1024).backward()
    torch.manual_seed(1)
    program.step(*inputs, y)
    learned = [p for p in model.parameters() if p.requires_grad]
    close([p.grad for p in learned], [p.grad * 1024 for p in program.parameters() if p.requires_grad], 1e-9)


WEIGHT = [0.5, 1.0, 2.0, 1.5]
LOSSES = {
    "mean": lambda: (F.cross_entropy, {}),
    "sum": lambda: (nn.CrossEntropyLoss(reduction="sum"), {}),
    "smoothed": lambda: (nn.CrossEntropyLoss(label_smoothing=0.1), {}),
    "smoothed_unsaid": lambda: (functools.partial(F.cross_entropy, label_smoothing=0.1), {"loss_fn": F.cross_entropy}),
    "weighted": lambda: (nn.CrossEntropyLoss(weight=torch.tensor(WEIGHT)), {}),
    "weighted_unsaid": lambda: (nn.CrossEntropyLoss(weight=torch.tensor(WEIGHT)), {"loss_fn": F.cross_entropy}),
    "weighted_sum": lambda: (nn.CrossEntropyLoss(weight=torch.tensor(WEIGHT), reduction="sum"), {}),
    "weighted_smoothed": lambda: (nn.CrossEntropyLoss(weight=torch.tensor(WEIGHT), label_smoothing=0.2), {}),
    "ignoring": lambda: (nn.CrossEntropyLoss(ignore_index=1), {}),
    "ignoring_sum": lambda: (nn.CrossEntropyLoss(ignore_index=1, reduction="sum"), {}),
}


@pytest.mark.parametrize("times", [1.0, 1000.0])
@pytest.mark.parametrize("wiring", ["depth1", "depth1_local"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_cross_entropy_is_undone(loss: str, wiring: str, times: float) -> None:
    loss_fn, said = LOSSES[loss]()
    x, y = batch()
    program = rc.compile(mlp(), x, wiring, loss_fn=loss_fn)
    model = rc.attach(mlp(), x, wiring, **{"loss_fn": loss_fn, **said})
    (loss_fn(model(x), y) * times).backward()
    program.step(x, y)
    close([p.grad for p in model.parameters()], [p.grad * times for p in program.parameters()])


def ones(y):
    return F.one_hot(y, CLASSES).double()


ELEMENTS = {
    "mse": (F.mse_loss, ones),
    "mse_sum": (nn.MSELoss(reduction="sum"), ones),
    "bce_logits": (F.binary_cross_entropy_with_logits, ones),
    "bce_logits_sum": (nn.BCEWithLogitsLoss(reduction="sum"), ones),
    "bce_positive": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor(WEIGHT, dtype=torch.float64)), ones),
    "bce_soft": (F.binary_cross_entropy_with_logits, lambda y: 0.8 * ones(y) + 0.1),
    "bce": (nn.BCELoss(), ones),
    "nll": (F.nll_loss, lambda y: y),
    "nll_weighted": (nn.NLLLoss(weight=torch.tensor(WEIGHT, dtype=torch.float64)), lambda y: y),
}


@pytest.mark.parametrize("loss", ELEMENTS)
def test_other_losses(loss: str) -> None:
    loss_fn, target = ELEMENTS[loss]
    x, y = batch()
    net = mlp()
    if loss == "bce":
        net.append(nn.Sigmoid())
    if loss.startswith("nll"):
        net.append(nn.LogSoftmax(1))
    program = rc.compile(copy.deepcopy(net), x, "depth1", loss_fn=loss_fn)
    follow(rc.attach(net, x, "depth1", loss_fn=loss_fn), program, (x,), target(y), loss_fn)


def test_soft_labels_of_a_teacher() -> None:
    def distill(output, y):
        return F.kl_div(output.log_softmax(1), y, reduction="batchmean")

    x, _ = batch()
    y = torch.softmax(batch(1)[0][:, :CLASSES], 1)
    program = rc.compile(mlp(), x, "depth1", loss_fn=distill, reduction="mean")
    follow(rc.attach(mlp(), x, "depth1"), program, (x,), y, distill)


def test_a_scaled_loss_of_elements_needs_its_scale_said() -> None:
    x, y = batch()
    program = rc.compile(mlp(), x, "depth1", loss_fn=F.mse_loss)
    program.step(x, ones(y))
    model = rc.attach(mlp(), x, "depth1", loss_fn=F.mse_loss, loss_scale=lambda: 65536.0)
    (F.mse_loss(model(x), ones(y)) * 65536).backward()
    close([p.grad for p in model.parameters()], [p.grad * 65536 for p in program.parameters()])
    model = rc.attach(mlp(), x, "depth1", loss_fn=F.mse_loss)
    with pytest.warns(UserWarning, match=r"A010.*\n.*loss_scale"):
        (F.mse_loss(model(x), ones(y)) * 65536).backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        (F.mse_loss(model(x), ones(y)) * 65536).backward()


def test_a_loss_that_is_not_the_one_named_is_doubted() -> None:
    x, y = batch()
    model = rc.attach(mlp(), x, "depth1")
    with pytest.warns(UserWarning, match="A010"):
        F.mse_loss(model(x), ones(y)).backward()


def test_labels_can_be_handed_over() -> None:
    """Then any loss and any factor of it is exact."""
    def odd(output, y):
        return (output - ones(y)).abs().pow(1.5).mean()

    x, y = batch()
    program = rc.compile(mlp(), x, "depth1", loss_fn=odd)
    program.step(x, y)
    model = rc.attach(mlp(), x, "depth1", loss_fn=odd)
    loss = odd(model(x), y) / 7
    model.reclra.labels(y)
    loss.backward()
    close([p.grad for p in model.parameters()], [p.grad / 7 for p in program.parameters()])


def test_an_unknown_loss_trains() -> None:
    x, y = batch()
    model = rc.attach(mlp(), x, "depth1", loss_fn=F.smooth_l1_loss)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.smooth_l1_loss(model(x), ones(y))
        loss.backward()
        optimizer.step()
        return loss.item()

    with pytest.warns(UserWarning, match=r"A010.*labels"):
        first = step()
    assert [step() for _ in range(39)][-1] < 0.6 * first


class Tokens(nn.Module):
    """(N, T) tokens to (N, T, 7) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.out = nn.Embedding(7, 8), nn.Linear(8, 8), nn.Linear(8, 7)

    def forward(self, x):
        return self.out(torch.tanh(self.mix(self.embed(x))))


@pytest.mark.parametrize("last", [True, False])
def test_logits_of_sequences(last: bool) -> None:
    """Flattened by the loop, as language models do, with tokens that do not count; or with classes second."""
    torch.manual_seed(0)
    net, x = Tokens(), torch.randint(7, (4, 5))
    y = torch.where(torch.rand(4, 5) < 0.3, -100, torch.randint(7, (4, 5)))

    def loss(z, y):
        return F.cross_entropy(z.reshape(-1, 7), y.reshape(-1)) if last else F.cross_entropy(z.transpose(1, 2), y)

    program = rc.compile(copy.deepcopy(net), x, "depth1", loss_fn=loss)
    follow(rc.attach(net, x, "depth1"), program, (x,), y, loss)
