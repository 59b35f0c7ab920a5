"""Mixed precision in a loop with an attached model: autocast, and gradient scalers that multiply the loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loops import compiled, every_step, loop
from torch import nn

import reclra_compile as rc

STEPS = 6


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("wiring", ["depth1", "depth2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_amp(dtype: torch.dtype, wiring: str, scale: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scaler keeps small gradients at the output from being rounded to zero, as the sum over samples does here."""
    amp, batch = loop("amp"), []
    program = compiled(wiring, loss_fn=nn.CrossEntropyLoss(reduction="sum" if scale else "mean"))

    def recorded(*args, **options):
        for batch[:] in loop("digits").batches(*args, **options):
            yield tuple(batch)

    def take() -> None:
        with torch.amp.autocast("cpu", dtype):
            program.step(*batch)
        for p in program.parameters():
            p.grad /= len(batch[1]) if scale else 1
        program.clip(1.0)

    monkeypatch.setattr(amp, "batches", recorded)
    with every_step(program, take) as largest:
        amp.main(dtype, scale, epochs=1, steps=STEPS, wiring=wiring)
    assert len(largest) == STEPS and min(largest) > 0.01


def test_a_scaler_that_is_too_large_is_halved_until_gradients_are_finite() -> None:
    """Gradients that overflow have to arrive as such, so that the scaler leaves the step out."""
    digits = loop("digits")
    torch.manual_seed(0)
    model = rc.attach(digits.network(), digits.images()[:32], "depth1")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26)
    x, y = next(digits.batches())
    scales, moved = [scaler.get_scale()], []
    for _ in range(10):
        optimizer.zero_grad()
        with torch.amp.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        before = [p.detach().clone() for p in model.parameters()]
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        moved.append(any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)))
    assert moved == [now == then for now, then in zip(scales[1:], scales, strict=False)]
    assert not moved[0] and moved[-1]
    assert all(p.isfinite().all() for p in model.parameters())
