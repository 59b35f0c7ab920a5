"""What is read in gradients at the edge of rounding, of rare losses, and after steps that failed."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from test_attach import batch, gradients, mlp
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.integrate.crossentropy import CrossEntropy
from reclra_compile.integrate.labels import Reading, read
from reclra_compile.integrate.losses import loss_of


def reading(z: Tensor, loss, said=F.cross_entropy, wants_labels: bool = True) -> Reading:
    """What is read of the gradient of `loss` at logits `z`, where the loop said that it is `said`."""
    z = z.detach().requires_grad_()
    loss(z).backward()
    return read(z.detach(), z.grad, loss_of(said, None), None, wants_labels)


def labels(found: Reading, classes: int) -> Tensor:
    assert isinstance(found.loss, CrossEntropy)
    z = torch.zeros(len(found.loss._factors), classes)
    return 1 / classes - found.loss.gradient(z) / found.loss._factors


@pytest.mark.parametrize("gap", [14.0, 60.0, 85.0])
def test_rows_that_are_sure_are_read(gap: float) -> None:
    """Labels' own entries are differences of near numbers there, and squares of the gradient are lost."""
    z = torch.tensor([[gap, 0.0, -3.0], [0.0, gap + 1, 2.0], [0.5, 0.0, gap]])
    found = reading(z, lambda z: F.cross_entropy(z, torch.tensor([0, 1, 2])))
    assert found.factor == 1 / 3 and found.told and not found.doubt
    torch.testing.assert_close(labels(found, 3), torch.eye(3))


def test_a_sure_row_has_its_own_class_where_all_its_gradient_is_lost() -> None:
    z = torch.tensor([[-100.0, 0.0, 40.0, 5.0], [1.0, 2.0, 3.0, 0.0]])
    found = reading(z, lambda z: F.cross_entropy(z, torch.tensor([2, 1])))
    assert found.factor == 0.5
    assert labels(found, 4).argmax(1).tolist() == [2, 1]


def test_rows_that_are_lost_count_by_the_weight_of_their_class() -> None:
    loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 4.0]))
    z = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.0, 0.1], [0.0, 0.0, 300.0], [0.0, 300.0, 0.0]])
    found = reading(z, lambda z: loss_fn(z, torch.tensor([0, 1, 2, 1])), loss_fn)
    assert found.factor == 0.25
    torch.testing.assert_close(found.loss._factors[:, 0] * 6.5, torch.tensor([0.5, 1.0, 4.0, 1.0]))


@pytest.mark.parametrize("times", [0.0, 1e-42])
def test_no_gradient_has_the_factor_of_a_mean(times: float) -> None:
    x, y = batch()
    assert reading(x, lambda z: F.cross_entropy(z, y) * times).factor == 1 / len(x)
    assert reading(x, lambda z: z.sum() * times, functools.partial(F.cross_entropy, reduction="sum")).factor == 1.0


def test_soft_labels_of_two_classes_are_no_hard_ones() -> None:
    x, y = batch()
    target = 0.3 * F.one_hot(y % 2, 2).float() + 0.7 * F.one_hot(y % 2, 2).float().flip(0)
    found = reading(x[:, :2], lambda z: F.cross_entropy(z, target))
    assert found.factor == pytest.approx(1 / len(x))
    torch.testing.assert_close(labels(found, 2), target)


@pytest.mark.parametrize("stepped", [False, True])
def test_a_step_that_fails_leaves_nothing_for_the_next_one(stepped: bool) -> None:
    x, y = batch()
    model = rc.attach(mlp(), x, "depth1")

    def step() -> None:
        model.zero_grad()
        if stepped:
            model.reclra.program.step(x, y)
        else:
            F.cross_entropy(model(x), y).backward()

    step()
    expected, steps = gradients(model), model.reclra.program._steps
    late = max(k for k, t in enumerate(model.reclra.plan.tasks) if t.kind == "U")

    def broken(slots) -> None:
        raise KeyboardInterrupt

    kept, steps[late] = steps[late], broken
    with pytest.raises(KeyboardInterrupt):
        step()
    steps[late] = kept
    step()
    for a, b in zip(gradients(model), expected, strict=True):
        assert torch.equal(a, b)


def test_labels_that_mix_two_of_ten_classes_are_found_where_logits_are_sure() -> None:
    torch.manual_seed(0)
    z, y = torch.randn(32, 10) * 20, torch.randint(10, (32,))
    target = 0.3 * F.one_hot(y, 10).float() + 0.7 * F.one_hot(y.flip(0), 10).float()
    found = reading(z, lambda z: F.cross_entropy(z, target) * 1024)
    assert found.factor == 1024 / 32 and not found.doubt
    torch.testing.assert_close(labels(found, 10), target, atol=1e-5, rtol=0)


def test_a_large_vocabulary_is_read_from_some_rows() -> None:
    """The labels of all; and of rows that are ignored, or so sure that nothing is left, only the second count."""
    torch.manual_seed(0)
    z, y = torch.randn(300, 9000), torch.randint(9000, (300,))
    z[:3] = -200.0
    z[:3].scatter_(1, y[:3, None], 0.0)
    y[5:40] = -100
    for wanted in (True, False):
        found = reading(z, lambda z: F.cross_entropy(z, y) * 4, wants_labels=wanted)
        assert found.factor == pytest.approx(4 / 300) and found.told
        if wanted:
            torch.testing.assert_close(found.loss._factors.sum(), torch.tensor(4.0))
            r = torch.randn(300, 9000).requires_grad_()
            (F.cross_entropy(r, y) * 4).backward()
            torch.testing.assert_close(found.loss.gradient(r.detach()), r.grad)
            torch.testing.assert_close(found.loss(r), F.cross_entropy(r, y) * 4)


def focal(z: Tensor) -> Tensor:
    each = F.cross_entropy(z, torch.arange(len(z)) % z.shape[1], reduction="none")
    return ((1 - (-each).exp()).square() * each).mean()


def test_rows_that_count_differently_have_the_factor_of_a_mean() -> None:
    """As in the program; but where the loss is multiplied by much, that is told from what rows count."""
    torch.manual_seed(0)
    z = torch.randn(16, 4)
    found = reading(z, focal)
    assert found.factor == 1 / 16 and not found.doubt
    found = reading(z, lambda z: focal(z) * 65536)
    assert "factor of its own" in found.doubt and found.factor > 2**15 / 16


def test_a_loss_of_ones_own_has_no_labels_for_read_outs() -> None:
    x, _ = batch()
    for wanted in (True, False):
        found = reading(x, lambda z: F.smooth_l1_loss(z, z.detach().flip(0)), F.smooth_l1_loss, wanted)
        assert ("labels(y)" in found.doubt) == wanted


def test_a_loss_of_log_probabilities_is_known_without_being_said() -> None:
    """The model ends in a log-softmax and the loop uses F.nll_loss, with or without `loss_fn=`."""
    x, y = torch.randn(8, 5), torch.tensor([0, 1, 2, 0, 1, 2, -100, 1])
    found = {}
    for said in (F.cross_entropy, F.nll_loss):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.LogSoftmax(1))
        model = rc.attach(model, x, "depth1_local", loss_fn=said)
        (4 * F.nll_loss(model(x), y)).backward()
        found[said] = [p.grad for p in model.parameters()]
    for a, b in zip(*found.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
