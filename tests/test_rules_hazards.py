"""Rules that run regions again or draw noise: precision, dropout, batch statistics, depth, glue, own rules."""

from __future__ import annotations

import copy

import pytest
import torch
from test_equations import make
from test_rules import equilibrium, target_propagation
from torch import nn

import reclra_compile as rc
from reclra_compile.errors import TrainingError, UserError, WiringError


def deep(depth: int) -> nn.Sequential:
    layers = [m for _ in range(depth) for m in (nn.Linear(8, 8), nn.Tanh())]
    for layer in layers[::2]:
        nn.init.xavier_uniform_(layer.weight)
    return nn.Sequential(*layers, nn.Linear(8, 3))


def grads(program: rc.Program, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    program.zero_grad()
    program.step(x, y)
    return [p.grad.clone() for p in program.model.parameters()]


@pytest.mark.parametrize("depth", [5, 8])
def test_a_deep_network_that_settles_is_not_lost_to_rounding(depth: int) -> None:
    torch.manual_seed(0)
    model, x, y = deep(depth), torch.randn(16, 8), torch.randint(3, (16,))
    twin = copy.deepcopy(model).double()
    program = rc.compile(model, x, "equilibrium_propagation")
    assert not program.plan.warnings
    exact = rc.compile(twin, x.double(), plan=program.plan)
    for a, b in zip(grads(program, x, y), grads(exact, x.double(), y), strict=True):
        assert torch.nn.functional.cosine_similarity(a.flatten().double(), b.flatten(), dim=0) > 0.98


def test_long_chains_of_inverses_are_warned_of() -> None:
    for depth, warned in ((6, False), (12, True)):
        _, program, *_ = make(depth, "tanh", target_propagation())
        assert any("learned inverses" in w.message for w in program.plan.warnings) == warned


def test_feedback_that_rounding_loses_is_warned_of() -> None:
    _, program, *_ = make(9, "tanh", equilibrium(feedback=0.1))
    assert any("float32 rounds away" in w.message for w in program.plan.warnings)


def test_one_dropout_mask_serves_all_phases_of_a_step() -> None:
    """Were the masks of the two sides different, their difference, ÷ 2β, would swamp the gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Dropout(0.3), nn.Linear(32, 32), nn.Tanh(), nn.Dropout(0.3),
                          nn.Linear(32, 3))  # fmt: skip
    x, y = torch.randn(64, 6), torch.randint(3, (64,))
    spec = equilibrium(beta=0.02, free=4, nudged=4, step=1.0, feedback=0.1)
    program = rc.compile(model, x, spec)
    second = grads(program, x, y)[2]
    model.eval()
    assert float(second.norm()) < 3 * float(grads(program, x, y)[2].norm())


def test_batch_statistics_are_those_of_settled_states() -> None:
    """Of the last free step; in eval mode the network settles elsewhere, of which a plan warns."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8, momentum=1.0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), norm, nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(32, 6), torch.randint(3, (32,))
    program = rc.compile(model, x, equilibrium(free=40, nudged=4, step=0.8, feedback=0.5))
    program.step(x, y)
    assert int(norm.num_batches_tracked) == 1
    assert any("batch norms" in w.message for w in program.plan.warnings)
    with torch.no_grad():
        start = model[2](torch.tanh(model[0](x))).mean(0)
    assert not torch.allclose(norm.running_mean, start, atol=1e-3)  # not those of the forward pass
    first = norm.running_mean.clone()
    program.predict(x)  # the same weights settle on the same states
    torch.testing.assert_close(norm.running_mean, first, rtol=0, atol=1e-4)
    count = int(norm.num_batches_tracked)
    model.eval()
    assert program.predict(x).shape == (32, 3) and norm.training is False
    assert int(norm.num_batches_tracked) == count


@pytest.mark.parametrize("wiring", ["target_propagation", "equilibrium_propagation", "weight_mirror"])
def test_autocast(wiring: str) -> None:
    torch.manual_seed(0)
    model, x, y = deep(4), torch.randn(16, 8), torch.randint(3, (16,))
    program = rc.compile(model, x, wiring)
    exact = grads(program, x, y)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        low = grads(program, x, y)
        assert program.predict(x).isfinite().all()
    for a, b in list(zip(low, exact, strict=True))[-2:]:
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.95
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in low)


class Gated(nn.Module):
    """Two branches that are multiplied: a region without parameters between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.a(x)) * torch.tanh(self.b(x)))


@pytest.mark.parametrize("wiring", ["weight_mirror", "feedback_alignment_wm", "equilibrium_propagation"])
def test_regions_without_parameters_lie_between(wiring: str) -> None:
    torch.manual_seed(0)
    model, x, y = Gated(), torch.randn(8, 6), torch.randint(3, (8,))
    assert all(float(g.abs().max()) > 0 for g in grads(rc.compile(model, x, wiring), x, y))


def test_the_displacement_that_an_update_reads_is_not_overwritten() -> None:
    seen = []

    @rc.register_update("reads_d")
    def reads_d(d, e):
        seen.append(d.clone())
        return d, e

    target = {"rule": "lra", "beta": 0.1}
    _, program, _, x, y = make(3, "tanh", {"version": 1, "target": target, "pathways": [
        {"from": "output", "to": "all", "update": "reads_d", "init": {"normal": 1.0}}]})  # fmt: skip
    program.step(x, y)
    z = program.model(x)
    e = torch.softmax(z, 1) - torch.nn.functional.one_hot(y, 4)
    wanted = [e @ program.synapses.get_submodule(f"l3->l{i}").E.T for i in (1, 2)]
    assert len(seen) == 2
    for d in seen:
        assert any(torch.allclose(d, w, atol=1e-12) for w in wanted)


def test_a_registered_rule_is_treated_as_the_shipped_one() -> None:
    """The same function under another name: another φ for targets, and low precision."""

    @rc.register_target("mine")
    def mine(h, d, phi, beta):
        """As lra."""
        return phi(h - beta * d)

    for phi in ("same", "relu"):
        found = []
        for rule in ("lra", "mine"):
            torch.manual_seed(0)
            spec = {"version": 1, "target": {"rule": rule, "beta": 0.01, "phi": phi},
                    "pathways": [{"from": "next", "to": "all"}]}  # fmt: skip
            model, x, y = deep(3), torch.randn(16, 8), torch.randint(3, (16,))
            program = rc.compile(model, x, spec)
            with torch.autocast("cpu", torch.bfloat16):
                found.append(grads(program, x, y))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("made", "words"), [(lambda z, e: z, "two tensors"), (lambda z, e: (z, None), "two tensors")])
def test_an_update_that_returns_something_else_is_an_error(made, words: str) -> None:
    rc.register_update("odd_update")(made)
    _, program, _, x, y = make(3, "tanh", {"version": 1, "pathways": [
        {"from": "next", "to": "all", "update": "odd_update"}]})  # fmt: skip
    with pytest.raises(UserError, match=words):
        program.step(x, y)


def test_a_target_rule_that_returns_something_else_is_an_error() -> None:
    rc.register_target("odd_target")(lambda z: z.sum())
    _, program, _, x, y = make(3, "tanh", {"version": 1, "target": {"rule": "odd_target"}, "pathways": [
        {"from": "next", "to": "all"}]})  # fmt: skip
    with pytest.raises(UserError, match="L004"):
        program.step(x, y)


@pytest.mark.parametrize(("options", "function"), [
    ({"kernels": ("mirror",)}, lambda z, e: (z, e)), ({"kernels": ("dens",)}, lambda z, e: (z, e)),
    ({"kernels": ("conv",), "readout": True}, lambda z, r: (z, r)), ({}, lambda z, /, e: (z, e)), ({}, lambda *z: z),
])  # fmt: skip
def test_what_cannot_be_registered(options: dict, function) -> None:
    with pytest.raises(UserError, match="L002"):
        rc.register_update("impossible", **options)(function)


def test_gamma_and_short_forms_of_noisy_updates() -> None:
    found = []
    for update in ({"autoencoding": 0.2}, {"autoencoding": {"noise": 0.2, "gamma": 3.0}}):
        spec = target_propagation()
        spec["pathways"][1]["update"] = update
        _, program, _, x, y = make(4, "tanh", spec)
        assert {p.noise for p in program.plan.pathways if p.update == "autoencoding"} == {0.2}
        torch.manual_seed(0)
        program.step(x, y)
        found.append([p.grad for p in program.synapse_parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(3 * a, b)


def test_a_small_error_survives_an_inverse() -> None:
    """d is linear in e for small e, in float32, however much smaller e is than z."""
    found = []
    for beta in (1e-2, 1e-6):
        spec = target_propagation()
        spec["overrides"] = [{"regions": "last", "target": {"beta": beta}}]
        torch.manual_seed(0)
        model, x, y = deep(4), torch.randn(16, 8), torch.randint(3, (16,))
        found.append(grads(rc.compile(model, x, spec), x, y)[0] / beta)
    assert torch.nn.functional.cosine_similarity(found[0].flatten(), found[1].flatten(), dim=0) > 0.9


def test_states_that_settle_in_eval_mode_have_no_dropout() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))
    x = torch.randn(8, 6)
    program = rc.compile(model, x, equilibrium())
    assert not torch.equal(program.predict(x), program.predict(x))
    model.eval()
    assert torch.equal(program.predict(x), program.predict(x))

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.nn.functional.dropout(torch.tanh(self.a(x)), 0.5, self.training))

    program = rc.compile(Functional(), x, equilibrium())
    program.predict(x)
    program.model.eval()
    with pytest.raises(TrainingError, match="T027"):
        program.predict(x)


def test_predict_counts_its_inputs() -> None:
    _, program, _, x, _ = make(3, "tanh", equilibrium())
    with pytest.raises(TrainingError, match="T003"):
        program.predict(x, x)


def test_regions_settle_on_all_levels_or_on_none() -> None:
    body = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model = nn.Sequential(body, nn.Tanh(), nn.Linear(6, 3))
    spec = {"version": 1, "regions": {"merge": ["0.*"]}, "pathways": [{"from": "output", "to": "all"}],
            "inside": "equilibrium_propagation"}  # fmt: skip
    with pytest.raises(WiringError, match="W043"):
        rc.compile(model, torch.zeros(4, 6), spec)
