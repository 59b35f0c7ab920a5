"""A plan for several devices run by threads: the gradients of one device, on every architecture."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from lanes import differ, gradients, made
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.errors import RankError


def after_threads(name: str, wiring: Any, count: int, **options: Any) -> dict[str, Tensor]:
    """Loss, gradients and discrepancy after one step."""
    module, inputs, y = made(name)
    loss_fn = F.mse_loss if name in ARCHITECTURES else F.cross_entropy
    program = rc.threaded(module, inputs, wiring, on=["cpu"] * count, loss_fn=loss_fn, **options)
    torch.manual_seed(1)
    loss = program.step(*inputs, y)
    own = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    own |= {
        f"synapses.{n}": p.grad
        for stage in program.stages
        for n, p in stage.synapses.named_parameters()
        if p.grad is not None
    }
    program.close()
    return {"loss": loss, "discrepancy": torch.tensor(program.discrepancy.total), **own}


@pytest.mark.parametrize("name", ["mlp", *ARCHITECTURES])
def test_threads_give_the_gradients_of_one_device(name: str) -> None:
    found = after_threads(name, "depth1", 2, microbatches=2)
    assert not differ(gradients(name, "depth1", microbatches=2), found)


@pytest.mark.parametrize("wiring", ["backprop", "depth2", "blocks", "feedback_alignment", "kolen_pollack", "lra_e"])
def test_threads_run_every_kind_of_wiring(wiring: str) -> None:
    found = after_threads("residual", wiring, 3, microbatches=2)
    assert not differ(gradients("residual", wiring, microbatches=2), found)


def test_threads_predict_in_eval_mode_what_the_model_does() -> None:
    module, inputs, y = made("resnet")
    program = rc.threaded(module, inputs, "blocks", on=["cpu", "cpu"], loss_fn=F.mse_loss, microbatches=2)
    program.step(*inputs, torch.randn_like(y))
    module.eval()
    assert torch.allclose(program.predict(*inputs), module(*inputs), atol=1e-12)
    assert not program.predict(*inputs).requires_grad
    program.close()


class Functional(nn.Module):
    """Dropout and batch norm as functions, which a trace binds to train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(self.first(x), self.mean, self.var, training=self.training)
        return self.last(F.dropout(torch.relu(x), 0.5, self.training))


@pytest.mark.parametrize("wiring", ["depth1", "backprop"])
def test_threads_evaluate_what_is_traced_for_training_alone(wiring: str) -> None:
    torch.manual_seed(0)
    module, x = Functional().double(), torch.randn(8, 6, dtype=torch.float64)
    program = rc.threaded(module, x, wiring, on=["cpu", "cpu"], microbatches=2)
    program.step(x, torch.arange(8) % 3)
    assert module.mean.any()
    module.eval()
    assert torch.allclose(program.predict(x), module(x), atol=1e-12)
    assert module.training is False
    module.train()
    assert not torch.allclose(program.predict(x), program.predict(x))
    program.close()


def test_a_thread_that_fails_ends_the_step_and_the_next_one_works() -> None:
    module, inputs, y = made("mlp")
    program = rc.threaded(module, inputs, "depth1", on=["cpu", "cpu"], microbatches=2)
    with pytest.raises(Exception, match="mat1 and mat2"):
        program.step(torch.randn(4, 5, dtype=torch.float64), y)
    assert program.step(*inputs, y).isfinite()
    program.close()


def test_state_goes_back_into_threads_on_as_many_devices() -> None:
    module, inputs, _ = made("mlp")
    program = rc.threaded(module, inputs, "depth1", on=["cpu", "cpu"])
    state = copy.deepcopy(program.state_dict())
    for p in program.synapses.parameters():
        p.data.zero_()
    program.load_state_dict(state)
    assert any(bool(p.any()) for p in program.synapses.parameters())
    with pytest.raises(rc.PlanError, match="another number of devices"):
        program.load_state_dict({"stages": []})
    program.close()


def test_one_torch_device_for_each_of_the_plans() -> None:
    module, inputs, _ = made("mlp")
    with pytest.raises(RankError, match="plan is for 2 devices, and 3 are named"):
        rc.threaded(module, inputs, "depth1", on=["cpu"] * 3, devices=2)
