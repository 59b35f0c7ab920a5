"""Training loops of plain PyTorch with one line changed do what `program.step` does; see examples/loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loops import (
    LOOPS,
    adamw,
    assert_equal,
    assert_same,
    compiled,
    double,
    follow,
    loop,
    started,
    unattached,
    weights,
)
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

import reclra_compile as rc
from reclra_compile.frontend.outputs import ALL

STEPS = 6
SHORT = {"epochs": 2, "steps": STEPS}
WIRINGS = ["depth1", "depth2", "backprop"]


@pytest.fixture(autouse=True)
def _double():
    with double():
        yield


def batches(*args, **options):
    return loop("digits").batches(*args, **options)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_plain(wiring: str, reduction: str) -> None:
    model = loop("plain").main(**SHORT, wiring=wiring, reduction=reduction)

    def loss(output, y):
        return F.cross_entropy(output, y, reduction=reduction)

    program = compiled(wiring, loss_fn=loss)
    optimizer = adamw(program)
    for _ in range(2):
        follow(program, optimizer, batches(limit=STEPS))
    assert_same(model, program)


@pytest.mark.parametrize("loss", [
    "label smoothing", "weights of classes", "soft labels", "squared error", "yes or no",
])  # fmt: skip
@pytest.mark.parametrize("wiring", ["depth1", "depth2"])
def test_losses(wiring: str, loss: str) -> None:
    losses = loop("losses")
    loss_fn, target = losses.LOSSES[loss]
    loss_fn.double()  # one of them has weights
    try:
        model = losses.main(loss, **SHORT, wiring=wiring)
        program = compiled(wiring, loss_fn=loss_fn)
        optimizer = adamw(program)
        for _ in range(2):
            follow(program, optimizer, ((x, target(y)) for x, y in batches(limit=STEPS)))
        assert_same(model, program)
    finally:
        loss_fn.float()


@pytest.mark.parametrize("hand_over", [True, False])
def test_a_loss_of_ones_own(hand_over: bool) -> None:
    """Read-outs learn it from labels that the loop hands over; errors alone, as of backprop, need none."""
    digits = loop("digits")

    def own(output, y):
        return (output - 2 * F.one_hot(y, 10)).abs().pow(1.5).sum(1).mean()

    wiring = "depth1" if hand_over else "backprop"
    program = compiled(wiring, loss_fn=own)
    follow(program, adamw(program), batches(limit=STEPS))
    torch.manual_seed(0)
    model = digits.network()
    model = rc.attach(model, digits.images()[:32], wiring, loss_fn=own)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for x, y in batches(limit=STEPS):
        optimizer.zero_grad()
        loss = own(model(x), y)
        if hand_over:
            model.reclra.labels(y)
        loss.backward()
        optimizer.step()
    assert_same(model, program)


@pytest.mark.parametrize("wiring", ["depth1", "depth2"])
def test_outputs(wiring: str) -> None:
    outputs = loop("outputs")
    model = outputs.main(**SHORT, wiring=wiring)

    def both(output, targets):
        return F.cross_entropy(output[:, :10], targets[0]) + F.mse_loss(output[:, 10:], targets[1])

    torch.manual_seed(0)
    program = started(rc.compile(outputs.Both(), loop("digits").images()[:32], wiring, loss_fn=both, output=ALL))
    optimizer = adamw(program)
    for _ in range(2):
        follow(program, optimizer, ((x, (y, x)) for x, y in batches(limit=STEPS)))
    assert_same(model, program)


def test_an_output_is_chosen() -> None:
    """Of the others a loss cannot be made, which shows where it is: they are None in training."""
    outputs, digits = loop("outputs"), loop("digits")
    torch.manual_seed(0)
    program = started(rc.compile(outputs.Both(), digits.images()[:32], "depth1", output="digit", unreached="freeze"))
    torch.manual_seed(0)
    model = rc.attach(outputs.Both(), digits.images()[:32], "depth1", output="digit", unreached="freeze")
    x, y = next(batches())
    program.step(x, y)
    found = model(x)
    assert found["image"] is None
    F.cross_entropy(found["digit"], y).backward()
    for p, q in zip(model.parameters(), program.parameters(), strict=True):
        assert torch.equal(p, q) and (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.allclose(p.grad, q.grad, 0, 1e-9)
    with torch.no_grad():
        assert model.eval()(x)["image"].shape == (64, 64)


@pytest.mark.parametrize("wiring", ["depth1", "depth2"])
def test_accumulation(wiring: str) -> None:
    accumulation = loop("accumulation")
    model = accumulation.main(epochs=2, steps=8, wiring=wiring)
    program = compiled(wiring)
    optimizer = adamw(program)
    for _ in range(2):
        for k, (x, y) in enumerate(batches(16, limit=8), 1):
            program.step(x, y)
            if k % 4 == 0:
                for p in program.parameters():
                    p.grad /= 4
                optimizer.step()
                optimizer.zero_grad()
    assert_same(model, program)


@pytest.mark.parametrize("wiring", ["depth1", "depth2"])
@pytest.mark.parametrize("by", ["norm", "value"])
def test_clipping(by: str, wiring: str) -> None:
    model = loop("clipping").main(by, **SHORT, wiring=wiring)
    program = compiled(wiring)
    optimizer = torch.optim.SGD(program.parameters(), lr=0.2, momentum=0.9)
    for _ in range(2):
        for x, y in batches(limit=STEPS):
            optimizer.zero_grad()
            program.step(x, y)
            if by == "norm":
                program.clip(0.5)
            else:
                nn.utils.clip_grad_value_(list(program.parameters()), 0.01)
            optimizer.step()
    assert_same(model, program)


@pytest.mark.parametrize("kind", ["foreach", "fused"])
def test_schedulers(kind: str) -> None:
    model = loop("schedulers").main(kind, **SHORT)
    program = compiled("depth1")
    optimizer = torch.optim.AdamW(program.parameters(), lr=1e-3, foreach=False)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=2 * STEPS)
    for _ in range(2):
        for batch in batches(limit=STEPS):
            follow(program, optimizer, [batch])
            scheduler.step()
    assert_same(model, program)


def frozen() -> nn.Module:
    made = loop("digits").network()
    made[0].requires_grad_(False)
    return made


@pytest.mark.parametrize("wiring", ["depth1", "depth2"])
def test_groups(wiring: str) -> None:
    model = loop("groups").main(**SHORT, wiring=wiring)
    program = compiled(wiring, frozen)
    learning = [p for p in program.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in learning if p.ndim > 1], "lr": 2e-3, "weight_decay": 0.1},
         {"params": [p for p in learning if p.ndim < 2], "lr": 4e-3, "weight_decay": 0.0}]
    )  # fmt: skip
    before = program.model[0].weight.clone()
    for _ in range(2):
        follow(program, optimizer, batches(limit=STEPS))
    assert_equal(weights(model), weights(program.model))
    assert torch.equal(model[0].weight, before) and model[0].weight.grad is None


def normalized() -> nn.Module:
    return loop("digits").network(normalize=True)


def test_evaluation() -> None:
    evaluation = loop("evaluation")
    model = evaluation.main(epochs=3, steps=STEPS)
    program = compiled("depth1", normalized)
    optimizer = adamw(program)
    for _ in range(3):
        follow(program, optimizer, batches(limit=STEPS))
        evaluation.evaluate(program.model)
    assert_same(model, program)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "save", "state_dict"])
def test_copies(way: str) -> None:
    model = loop("copies").main(way, epochs=1, steps=STEPS)
    program = compiled("depth1")
    optimizer = adamw(program)
    follow(program, optimizer, batches(limit=STEPS))
    if way == "state_dict":
        loop("digits").network()  # the copy is made from a new network, which draws
    follow(program, optimizer, batches(limit=STEPS))
    assert_same(model, program)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averaging(kind: str) -> None:
    found = loop("averaging").main(kind, epochs=4, steps=STEPS)
    program = compiled("depth1", normalized)
    averaged = AveragedModel(program.model, multi_avg_fn=get_ema_multi_avg_fn(0.98) if kind == "ema" else None)
    optimizer = adamw(program)
    scheduler = SWALR(optimizer, swa_lr=1e-3, anneal_epochs=4)
    for epoch in range(4):
        for batch in batches(limit=STEPS):
            follow(program, optimizer, [batch])
            if kind == "ema":
                averaged.update_parameters(program.model)
        if kind == "swa" and epoch >= 2:
            averaged.update_parameters(program.model)
        scheduler.step()
    update_bn(batches(limit=STEPS), averaged)
    assert_equal(weights(found), weights(averaged))
    pairs = zip(averaged.module.parameters(), program.model.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", [
    "plain", "outputs", "accumulation", "clipping", "schedulers", "groups", "evaluation", "copies", "averaging",
])  # fmt: skip
def test_with_backprop_it_is_the_loop_without_the_line(name: str) -> None:
    main = loop(name).main
    if name == "copies":
        model, plain = main("pickle", 1, STEPS, "backprop"), unattached(main, "pickle", 1, STEPS, "backprop")
    else:
        model, plain = (run(epochs=2, steps=8, wiring="backprop") for run in (main, lambda **k: unattached(main, **k)))
    assert not hasattr(plain, "reclra")
    assert_equal(weights(model), weights(plain))


def test_each_loop_has_one_line_of_ours() -> None:
    """Besides the import; a model that is made twice is attached twice, and a compiled step is another line."""
    for file in LOOPS.glob("*.py"):
        lines = [line for line in file.read_text().splitlines() if "rc." in line]
        assert len(lines) == {"digits.py": 0, "copies.py": 2}.get(file.name, 1), file.name
        assert all("the one line" in line for line in lines) or file.name == "compiled.py"
