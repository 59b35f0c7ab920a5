"""Each learning rule equals its equations written as plain loops (float64, 1e-10)."""

from __future__ import annotations

import math

import pytest
import torch
from architectures import ARCHITECTURES
from reference import Network
from reference_rules import difference_target_propagation, equilibrium_propagation, feedback, mirror
from test_equations import MLP, make, synapses_of
from torch import nn

import reclra_compile as rc
from reclra_compile.errors import PlanError, WiringError
from reclra_compile.runtime.mirror import correlation
from reclra_compile.runtime.state import StepState

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
CHAIN = {"from": "consumers", "to": "all", "kernel": "adjoint"}


def weight(model: nn.Module, level: int) -> torch.Tensor:
    return getattr(model, f"l{level}").weight


def assert_weights(model: nn.Module, expected: dict[int, torch.Tensor]) -> None:
    for i, dW in expected.items():
        torch.testing.assert_close(weight(model, i).grad, dW, **CLOSE, msg=lambda m, i=i: f"ΔW of layer {i}: {m}")


def feedback_wiring(kernel: str, update: str | None = None, last: str | None = None) -> dict:
    entry = {"from": "consumers", "to": "all", "kernel": kernel} | ({"update": update} if update else {})
    entries = [{**CHAIN, "to": "last", "kernel": last}, {**entry, "to": "rest"}] if last else [entry]
    return {"version": 1, "target": {"rule": "gradient"}, "pathways": entries}


def mirrors_of(program: rc.Program, depth: int) -> dict[int, torch.Tensor]:
    named = dict(program.synapses.named_parameters())
    return {i: named[f"mirror l{i}.l{i}"] for i in range(2, depth + 1) if f"mirror l{i}.l{i}" in named}


# Target propagation (E11)


def target_propagation(noise: float = 0.2) -> dict:
    return {
        "version": 1,
        "target": {"rule": "difference_target", "beta": 1, "normalize": False},
        "pathways": [
            {**CHAIN, "to": "last"},
            {"from": "next", "to": "rest", "update": {"autoencoding": {"noise": noise}}, "init": {"normal": 0.4}},
        ],
        "overrides": [{"regions": "last", "target": {"beta": 0.3}}],
    }


@pytest.mark.parametrize("phi", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("depth", [3, 4, 6])
def test_E11_difference_target_propagation(depth: int, phi: str) -> None:
    model, program, net, x, y = make(depth, phi, target_propagation())
    for p in program.synapse_parameters():
        p.data.add_(torch.linspace(-0.2, 0.2, p.numel(), dtype=p.dtype).view(p.shape))  # biases too
    inverse = {i: (s.E.detach(), s.b.detach()) for i in range(1, depth - 1) for s in [synapses_of(program, i + 1, i)]}
    torch.manual_seed(7)
    program.step(x, y)
    torch.manual_seed(7)
    levels = [int(t.subject.split("->l")[1]) for t in program.plan.tasks if t.kind == "V"]
    noise = {i: 0.2 * torch.randn(len(x), 7, dtype=torch.float64) for i in levels}
    dW, dV = difference_target_propagation(net, x, y, inverse, 0.3, noise)
    assert set(dV) == set(levels) and len(levels) == depth - 2
    assert_weights(model, dW)
    for i, (dE, dc) in dV.items():
        synapses = synapses_of(program, i + 1, i)
        torch.testing.assert_close(synapses.E_T.grad.T, dE, **CLOSE)
        torch.testing.assert_close(synapses.b.grad, dc, **CLOSE)


def test_inverses_learn_to_invert() -> None:
    _, program, net, x, y = make(5, "tanh", target_propagation(0.05))
    optimizer = torch.optim.Adam(program.synapse_parameters(), lr=0.01)
    _, z = net.forward(x)

    def miss(i: int) -> float:
        synapses = synapses_of(program, i + 1, i)
        back = torch.tanh(z[i + 1] @ synapses.E.T + synapses.b)
        return float(((back - z[i]).norm() / z[i].norm()).detach())

    before = [miss(i) for i in (1, 2, 3)]
    for _ in range(400):
        optimizer.zero_grad()
        program.step(x, y)
        optimizer.step()
    after = [miss(i) for i in (1, 2, 3)]
    assert all(a < 0.5 * b for a, b in zip(after, before, strict=True)), (before, after)


def test_autoencoding_needs_a_region_that_reads_its_target() -> None:
    spec = target_propagation()
    spec["pathways"][1] = {"from": "output", "to": "rest", "update": "autoencoding"}
    with pytest.raises(WiringError, match="W042"):
        make(5, "tanh", spec)


# Equilibrium propagation (E13)


def equilibrium(
    beta: float = 0.4, free: int = 9, nudged: int = 4, step: float = 0.7, feedback: float = 1.0
) -> dict:
    settle = {"free": free, "nudged": nudged, "step": step, "feedback": feedback}
    return {"version": 1, "target": {"rule": "equilibrium", "beta": beta, "settle": settle}, "pathways": [CHAIN]}


@pytest.mark.parametrize("phi", ["tanh", "sigmoid"])
@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("gamma", [1.0, 0.3])
def test_E13_equilibrium_propagation(gamma: float, depth: int, phi: str) -> None:
    model, program, net, x, y = make(depth, phi, equilibrium(feedback=gamma))
    loss = program.step(x, y)
    dW, db, rest = equilibrium_propagation(net, x, y, 0.4, 9, 4, 0.7, gamma)
    assert_weights(model, dW)
    for i, expected in db.items():
        torch.testing.assert_close(getattr(model, f"l{i}").bias.grad, expected, **CLOSE)
    output = rest[depth - 1] @ net.W[depth].T + net.b[depth]
    torch.testing.assert_close(program.predict(x), output, **CLOSE)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(output, y), **CLOSE)


@pytest.mark.parametrize("gamma", [1.0, 0.2])
def test_the_contrast_is_the_gradient_of_the_settled_loss(gamma: float) -> None:
    """Scellier and Bengio's theorem: after long settling and with small β, ΔW is ∂loss/∂W through the fixed point."""
    spec = equilibrium(beta=1e-3, free=400, nudged=400, step=0.5, feedback=gamma)
    model, program, net, x, y = make(4, "tanh", spec)
    for p in model.parameters():
        p.data.mul_(0.9)  # one fixed point
    program.step(x, y)
    W = [w.detach().clone().requires_grad_(True) if w.numel() else w for w in (net.W[0], *(weight(model, i)
         for i in range(1, 5)))]  # fmt: skip
    free = Network(W, [net.W[0], *(getattr(model, f"l{i}").bias.detach() for i in range(1, 5))], "tanh")
    _, z = free.forward(x)
    s = {i: z[i].detach() for i in range(1, 4)}
    for _ in range(400):
        drive = {i: (x if i == 1 else s[i - 1]) @ W[i].T + free.b[i] for i in s}
        s = {i: 0.5 * s[i] + 0.5 * torch.tanh(drive[i] + (gamma * s[i + 1] @ W[i + 1] if i < 3 else 0)) for i in s}
    nn.functional.cross_entropy(s[3] @ W[4].T + free.b[4], y).backward()
    for i in range(1, 5):
        torch.testing.assert_close(weight(model, i).grad, W[i].grad, rtol=1e-4, atol=1e-7)


def test_weak_feedback_is_backpropagation() -> None:
    """Xie and Seung 2003: with feedback that vanishes the contrast is the gradient of the forward pass."""
    spec = equilibrium(beta=1e-2, free=5, nudged=5, step=1.0, feedback=0.01)
    model, program, _, x, y = make(5, "tanh", spec)
    program.step(x, y)
    seen = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    for a, p in zip(seen, model.parameters(), strict=True):
        assert float((a * p.grad).sum() / (a.norm() * p.grad.norm())) > 0.995


def test_by_default_there_are_as_many_steps_as_errors_need() -> None:
    spec = equilibrium()
    spec["target"]["settle"] = {"feedback": 0.5}
    _, program, *_ = make(6, "tanh", spec)
    assert {(t.free_steps, t.nudged_steps) for t in program.plan.targets if t.rule == "equilibrium"} == {(8, 6)}


def test_all_regions_settle_or_none() -> None:
    spec = equilibrium()
    spec["overrides"] = [{"regions": "l2", "target": {"rule": "lra"}}]
    with pytest.raises(WiringError, match="W043"):
        make(4, "tanh", spec)
    spec = equilibrium() | {"pathways": [{"from": "next", "to": "all", "kernel": "dense"}]}
    with pytest.raises(WiringError, match="W043"):
        make(4, "tanh", spec)
    _, program, *_ = make(4, "tanh", equilibrium())
    changes = (("free_steps=9", "free_steps=0"), ("target l2 rule=equilibrium beta=0.4", "target l2 rule=equilibrium"))
    for old, new in changes:
        edited = rc.Plan.parse(str(program.plan).replace(old, new))
        with pytest.raises(PlanError, match="P104"):
            rc.compile(program.model, torch.zeros(9, 6, dtype=torch.float64), plan=edited)


def test_settling_counts_batch_statistics_once_and_keeps_one_dropout_mask() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 8), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(8, 3))
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    program = rc.compile(model, x, equilibrium())
    for count in (1, 2):
        program.step(x, y)
        assert int(layers[1].num_batches_tracked) == count
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# Feedback weights: FA, SS, KP, WM and their mixtures


@pytest.mark.parametrize("phi", ["tanh", "relu"])
@pytest.mark.parametrize(("kernel", "update"), [("mirror", "fixed"), ("mirror", "kolen_pollack"),
                                                ("mirror", "weight_mirror"), ("sign", None)])  # fmt: skip
@pytest.mark.parametrize("last", [None, "adjoint"])
def test_errors_go_back_through_feedback_weights(kernel: str, update: str | None, phi: str, last: str | None) -> None:
    model, program, net, x, y = make(5, phi, feedback_wiring(kernel, update, last))
    if kernel == "sign":
        B = {i: torch.sign(net.W[i]) * net.W[i].abs().mean() for i in range(2, 6)}
    else:
        B = {i: b.detach().clone() for i, b in mirrors_of(program, 5).items()}
    if last:
        assert 5 not in mirrors_of(program, 5)
        B[5] = net.W[5]
    program.step(x, y)
    assert_weights(model, feedback(net, x, y, B))
    made = mirrors_of(program, 5)
    if update == "kolen_pollack":  # the forward update itself
        assert all(torch.equal(made[i].grad, weight(model, i).grad) for i in made)
    if update == "fixed":
        assert all(b.grad is None and not b.requires_grad for b in made.values())


def test_E12_mirror_mode_is_decay_less_correlation() -> None:
    _, program, net, x, y = make(4, "tanh", feedback_wiring("mirror", "weight_mirror"))
    before = {i: b.detach().clone() for i, b in mirrors_of(program, 4).items()}
    torch.manual_seed(3)
    program.step(x, y)
    torch.manual_seed(3)
    order = [int(t.subject.split("->")[0][1:]) for t in program.plan.tasks if t.kind == "M"]
    assert sorted(order) == [2, 3, 4]
    for i in order:
        noise = torch.randn(len(x), net.W[i].shape[1], dtype=torch.float64)
        torch.testing.assert_close(mirrors_of(program, 4)[i].grad, mirror(net.W[i], before[i], noise, 1.0), **CLOSE)


def test_the_correlation_of_noise_with_its_response_is_the_weight() -> None:
    torch.manual_seed(0)
    W = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    seen = correlation(W, 0.5, 200_000)
    assert seen.shape == W.shape
    assert float((seen - W).norm() / W.norm()) < 0.02


def angle(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.degrees(math.acos(min(1.0, float(((a * b).sum() / (a.norm() * b.norm())).detach()))))


def converging(name: str, update: str) -> tuple[rc.Program, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model, x = (MLP(4, "tanh"), torch.randn(64, 6)) if name == "mlp" else (ARCHITECTURES["resnet"]()[0],
                                                                           torch.randn(3, 3, 8, 8))  # fmt: skip
    program = rc.compile(model, x, feedback_wiring("mirror", update))
    assert max(angles(program)) > 60
    return program, x, x.flatten(1)[:, :4].argmax(1)


def angles(program: rc.Program) -> list[float]:
    """Degrees between forward and feedback weights, layer by layer."""
    pairs = [pair for pairs in program._linked.mirrors.values() for pair in pairs]
    assert len(pairs) >= 3
    return [angle(W, B) for W, B, _ in pairs]


@pytest.mark.parametrize(("name", "lr", "decay"), [("mlp", 0.2, 0.04), ("resnet", 0.05, 0.3)])
def test_kolen_pollack_weights_converge_to_the_forward_weights(name: str, lr: float, decay: float) -> None:
    """From about 90° to below 5° in every layer: the two get the same updates, so that their difference decays."""
    program, x, y = converging(name, "kolen_pollack")
    optimizer = torch.optim.SGD(program.parameters(), lr=lr, weight_decay=decay)
    for _ in range(400):
        optimizer.zero_grad()
        program.step(x, y)
        optimizer.step()
    assert max(angles(program)) < 5


def test_mirrors_follow_weights_that_learn() -> None:
    program, x, y = converging("mlp", "weight_mirror")
    groups = [{"params": list(program.model_parameters()), "lr": 0.002}, {"params": list(program.synapse_parameters())}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    for k in range(400):
        optimizer.zero_grad()
        program.step(x, y)
        optimizer.param_groups[1]["lr"] = 0.1 * (1 - k / 400) ** 2  # the noise averages out
        optimizer.step()
    assert max(angles(program)) < 5


def test_mirror_mode_alone_finds_the_filters_of_convolutions() -> None:
    program, *_ = converging("resnet", "weight_mirror")
    phase = [run for task, run in zip(program.plan.tasks, program._steps, strict=True) if task.kind == "M"]
    optimizer = torch.optim.SGD(program.synapse_parameters(), lr=0.1)
    for k in range(200):
        optimizer.zero_grad()
        for run in phase:
            run([StepState(batch=256)])
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - k / 200)
        optimizer.step()
    assert max(angles(program)) < 5


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
@pytest.mark.parametrize("wiring", rc.shipped())
def test_every_wiring_takes_a_step_on_every_kind_of_network(wiring: str, name: str) -> None:
    torch.manual_seed(0)
    if name == "mlp":
        model, x = MLP(5, "tanh"), torch.randn(8, 6)
    elif name == "cnn":
        model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3),
                              nn.Tanh(), nn.Flatten(), nn.Linear(8, 4))  # fmt: skip
        x = torch.randn(8, 3, 8, 8)
    else:
        model, (x,) = ARCHITECTURES["resnet"]()
    program = rc.compile(model, x, wiring)
    y = torch.randint(4, (len(x),))
    loss = program.step(x, y)
    assert loss.isfinite()
    learned = [p for p in program.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)
    assert any(float(p.grad.abs().max()) > 0 for p in model.parameters())
