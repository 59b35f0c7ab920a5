"""What loops have to mind, as docs/loops.md says it, and hooks, which they need not; the examples run as scripts."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from loops import LOOPS, compiled, double, every_step, loop
from torch import nn

import reclra_compile as rc

STEPS = 3


@pytest.fixture(autouse=True)
def _double():
    with double():
        yield


def attached(wiring: str = "depth1", **options) -> nn.Module:
    torch.manual_seed(0)
    model = loop("digits").network()
    return rc.attach(model, loop("digits").images()[:32], wiring, **options)


def one_hot(y: torch.Tensor) -> torch.Tensor:
    return F.one_hot(y, 10).double()


def some(count: int = STEPS) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    return [(x, one_hot(y)) for x, y in loop("digits").batches(limit=count)]


@pytest.mark.parametrize("wiring", ["depth1", "depth2"])
def test_a_scaler_of_a_loss_that_cannot_tell_says_its_scale(wiring: str) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)  # it doubles on the way
    model = attached(wiring, loss_fn=F.mse_loss, loss_scale=scaler.get_scale)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    program, batches = compiled(wiring, loss_fn=F.mse_loss), iter(some())
    with every_step(program, lambda: program.step(*next(batches))) as largest:
        for x, y in some():
            optimizer.zero_grad()
            scaler.scale(F.mse_loss(model(x), y)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert len(largest) == STEPS and scaler.get_scale() == 2048.0


def test_accumulation_of_a_loss_that_cannot_tell_says_what_it_is_divided_by() -> None:
    model = attached(loss_fn=F.mse_loss, loss_scale=0.25)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    program = compiled("depth1", loss_fn=F.mse_loss)

    def take() -> None:
        for x, y in some(4):
            program.step(x, y)
        for p in program.parameters():
            p.grad /= 4

    with every_step(program, take) as largest:
        for x, y in some(4):
            (F.mse_loss(model(x), y) / 4).backward()
        optimizer.step()
    assert len(largest) == 1


def test_layers_may_be_frozen_and_thawed_between_steps() -> None:
    model = attached()
    (x, y), own = some(1)[0], list(model.parameters())
    for frozen in (False, True, False):
        model[2].requires_grad_(not frozen)
        model.zero_grad()
        F.cross_entropy(model(x), y.argmax(1)).backward()
        assert [p.grad is None for p in own] == [frozen and k in (2, 3) for k in range(len(own))]


def test_hooks_of_parameters_fire_once_in_a_backward_pass() -> None:
    model, (x, y) = attached("depth2"), some(1)[0]
    before, after = [], []
    for k, p in enumerate(model.parameters()):
        p.register_hook(lambda g, k=k: before.append(k))
        p.register_post_accumulate_grad_hook(lambda p, k=k: after.append(k))
    F.cross_entropy(model(x), y.argmax(1)).backward()
    every = list(range(len(list(model.parameters()))))
    assert sorted(before) == sorted(after) == every


def test_a_copy_links_itself_while_a_library_has_replaced_its_forward() -> None:
    """Lightning does so around each training step; a process that it spawns starts from a pickled copy."""
    model, (x, y) = attached(), some(1)[0]
    twin = copy.deepcopy(model)
    forward = twin.forward
    twin.forward = lambda *args: forward(*args)
    for one in (model, twin):
        F.cross_entropy(one(x), y.argmax(1)).backward()
    assert "forward" in vars(twin)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.stem for p in LOOPS.glob("*.py") if p.stem not in ("digits", "ddp")))
def test_each_loop_runs_as_a_script(name: str) -> None:
    """And learns, in every variant that it prints."""
    needs = {"lightning_trainer": "lightning", "accelerate_loop": "accelerate", "hf_trainer": "transformers"}
    if name in needs:
        pytest.importorskip(needs[name])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(LOOPS / f"{name}.py")], env=environment, capture_output=True, text=True,
                          timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    errors = [float(part.split()[0]) for part in done.stdout.split("test error ")[1:]]
    assert errors and errors[-1] < 20, done.stdout
