"""Every ΔW and ΔE of a compiled program equals Algorithm 1 written as plain loops (float64, 1e-12)."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from reference import PHI, Network, Result, Rule, local_readout, run
from torch import nn

import reclra_compile as rc
from reclra_compile.layers import Sign

MODULES = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "sign": Sign, "sigmoid": nn.Sigmoid}
WIDTH, INPUTS, CLASSES, BATCH = 7, 6, 4, 9


class MLP(nn.Module):
    """`depth` linear layers l1…; with `gap`, layer l adds z_{l−gap} to its pre-activation where l mod gap = 0."""

    def __init__(self, depth: int, phi: str, gap: int = 0) -> None:
        super().__init__()
        self.depth, self.gap, self.phi = depth, gap, MODULES[phi]()
        sizes = [INPUTS, *[WIDTH] * (depth - 1), CLASSES]
        for k in range(1, depth + 1):
            self.add_module(f"l{k}", nn.Linear(sizes[k - 1], sizes[k]))

    def forward(self, x):
        z = [x]
        for k in range(1, self.depth + 1):
            h = getattr(self, f"l{k}")(z[-1])
            if self.gap and k % self.gap == 0 and self.gap < k < self.depth:
                h = h + z[k - self.gap]
            z.append(h if k == self.depth else self.phi(h))
        return z[-1]


def make(depth: int, phi: str, wiring: dict, gap: int = 0, seed: int = 0):
    """Model, program, and the same network for the reference, in float64."""
    torch.manual_seed(seed)
    model = MLP(depth, phi, gap).double()
    x = torch.randn(BATCH, INPUTS, dtype=torch.float64)
    y = torch.randint(CLASSES, (BATCH,))
    program = rc.compile(model, x, wiring, seed=seed)
    layers = [getattr(model, f"l{k}") for k in range(1, depth + 1)]
    empty = torch.empty(0)
    net = Network([empty, *(m.weight.detach() for m in layers)], [empty, *(m.bias.detach() for m in layers)], phi, gap)
    return model, program, net, x, y


def synapses_of(program: rc.Program, source: int, target: int):
    return program.synapses.get_submodule(f"l{source}->l{target}")


def reference(program: rc.Program, net: Network, x, y, rule: Rule, update: str, gamma: float = 1.0) -> Result:
    pathways: dict[int, list] = {}
    for p in program.plan.pathways:
        j, i = int(p.source[1:]), int(p.target[1:])
        pathways.setdefault(i, []).append((j, synapses_of(program, j, i).E.detach()))
    return run(net, x, y, pathways, rule, update, gamma)


def assert_same(program: rc.Program, model: nn.Module, expected: Result, loss, tolerance: float = 1e-12) -> None:
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(loss, expected.loss, **close)
    for i, dW in expected.W.items():
        layer = getattr(model, f"l{i}")
        torch.testing.assert_close(layer.weight.grad, dW, **close, msg=lambda m, i=i: f"ΔW of layer {i}: {m}")
        torch.testing.assert_close(layer.bias.grad, expected.b[i], **close)
    for (j, i), dE in expected.E.items():
        E_T = synapses_of(program, j, i).E_T
        if E_T.requires_grad:
            torch.testing.assert_close(E_T.grad.T, dE, **close, msg=lambda m, j=j, i=i: f"ΔE {j}→{i}: {m}")


WIRINGS = {
    "depth1": [{"from": "output", "to": "all"}],
    "gap2": [{"from": "output", "to": {"every": 2}}, {"from": "next", "to": "rest"}],
    "gap3": [{"from": "output", "to": {"every": 3}}, {"from": "next", "to": "rest"}],
    "chain": [{"from": "next", "to": "all"}],
}


def wiring(kind: str, depth: int, rule: dict | None = None, update: object = "lra") -> dict:
    entries = WIRINGS[kind]
    if kind.startswith("gap") and depth <= int(kind[3]):
        entries = WIRINGS["chain"]  # no layer below the output is a multiple of the gap
    return {
        "version": 1,
        "target": {"rule": "lra", "beta": 0.1, "normalize": False, **(rule or {})},
        "pathways": entries,
        "synapses": {"kernel": "dense", "init": {"normal": 0.3}, "update": update},
    }


@pytest.mark.parametrize("phi", ["relu", "tanh", "elu", "sigmoid", "sign"])
@pytest.mark.parametrize("depth", range(2, 10))
@pytest.mark.parametrize("kind", WIRINGS)
def test_E1_to_E6_algorithm_1(kind: str, depth: int, phi: str) -> None:
    model, program, net, x, y = make(depth, phi, wiring(kind, depth, update={"lra": {"gamma": 0.7}}))
    loss = program.step(x, y)
    assert_same(program, model, reference(program, net, x, y, Rule(beta=0.1), "lra", gamma=0.7), loss)


@pytest.mark.parametrize("gap", [2, 3])
@pytest.mark.parametrize("phi", ["relu", "tanh", "sign"])
@pytest.mark.parametrize("source", ["next", "consumers"])
def test_algorithm_1_on_a_residual_network(gap: int, phi: str, source: str) -> None:
    spec = wiring("chain", 9)
    spec["pathways"] = [{"from": "output", "to": {"every": gap}}, {"from": source, "to": "rest"}]
    model, program, net, x, y = make(9, phi, spec, gap=gap)
    assert any(net.skips(level) for level in range(1, 10))
    loss = program.step(x, y)
    assert_same(program, model, reference(program, net, x, y, Rule(beta=0.1), "lra"), loss)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("normalize", [False, True])
def test_E2_norms_kappa_and_normalisation(p: int, q: int, normalize: bool) -> None:
    options = {"beta": 0.05, "p": p, "q": q, "kappa": 0.6, "normalize": normalize}
    model, program, net, x, y = make(5, "tanh", wiring("gap2", 5, options))
    loss = program.step(x, y)
    expected = reference(program, net, x, y, Rule(**options), "lra")
    assert_same(program, model, expected, loss)
    terms = program.discrepancy.regions
    for i, value in expected.discrepancy.items():
        assert terms[f"l{i}"] == pytest.approx(value, rel=1e-10)
    assert program.discrepancy.total == pytest.approx(sum(terms.values()))


def test_a_smooth_target_phi_for_sign_units() -> None:
    model, program, net, x, y = make(5, "sign", wiring("chain", 5, {"phi": "tanh", "beta": 0.2}))
    loss = program.step(x, y)
    expected = reference(program, net, x, y, Rule(beta=0.2, phi="tanh"), "lra")
    assert_same(program, model, expected, loss)
    assert float(expected.W[1].abs().max()) > 0


@pytest.mark.parametrize("kind", WIRINGS)
def test_E8_kolen_pollack(kind: str) -> None:
    model, program, net, x, y = make(6, "relu", wiring(kind, 6, update="kolen_pollack"))
    loss = program.step(x, y)
    assert_same(program, model, reference(program, net, x, y, Rule(beta=0.1), "kolen_pollack"), loss)


def test_E8_between_neighbours_is_the_transposed_weight_update() -> None:
    model, program, *_, x, y = make(5, "relu", wiring("chain", 5, update="kolen_pollack"))
    program.step(x, y)
    for i in range(2, 6):
        dE = synapses_of(program, i, i - 1).E_T.grad.T
        torch.testing.assert_close(dE, getattr(model, f"l{i}").weight.grad.T, rtol=0, atol=1e-14)


def test_E9_local_readout_learns_the_regions_own_readout() -> None:
    _, program, net, x, y = make(4, "relu", wiring("depth1", 4, update="local_readout"))
    for parameter in program.synapse_parameters():
        parameter.data.normal_()
    program.step(x, y)
    _, z = net.forward(x)
    for i in (1, 2, 3):
        synapses = synapses_of(program, 4, i)
        dE, db = local_readout(z[i], y, synapses.E.detach(), synapses.b.detach())
        torch.testing.assert_close(synapses.E_T.grad.T, dE, rtol=0, atol=1e-12)
        torch.testing.assert_close(synapses.b.grad, db, rtol=0, atol=1e-12)


def test_E10_local_loss_hears_its_own_readout() -> None:
    """d_i = E ∂loss(r_i)/∂r_i of the region's own read-out r_i, per sample, and E learns as by E9."""
    model, program, net, x, y = make(4, "tanh", wiring("depth1", 4, update="local_loss"))
    for parameter in program.synapse_parameters():
        parameter.data.normal_()
    program.step(x, y)
    h, z = net.forward(x)
    for i in (1, 2, 3):
        synapses = synapses_of(program, 4, i)
        E, b = synapses.E.detach(), synapses.b.detach()
        d = (torch.softmax(z[i] @ E + b, 1) - nn.functional.one_hot(y, CLASSES)) @ E.T
        e = PHI["tanh"](h[i]) - PHI["tanh"](h[i] - 0.1 * d)
        dW = sum(torch.outer(e[n], z[i - 1][n]) for n in range(BATCH)) / BATCH
        torch.testing.assert_close(getattr(model, f"l{i}").weight.grad, dW, rtol=0, atol=1e-12)
        dE, db = local_readout(z[i], y, E, b)
        torch.testing.assert_close(synapses.E_T.grad.T, dE, rtol=0, atol=1e-12)
        torch.testing.assert_close(synapses.b.grad, db, rtol=0, atol=1e-12)


@pytest.mark.parametrize("update", ["kolen_pollack", "local_readout", "lra"])
def test_gamma_scales_the_synapse_update(update: str) -> None:
    grads = []
    for gamma in (1.0, 0.25):
        _, program, *_, x, y = make(4, "relu", wiring("depth1", 4, update={update: {"gamma": gamma}}))
        program.step(x, y)
        grads.append([p.grad for p in program.synapse_parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(b, 0.25 * a)


def test_local_readout_follows_any_loss() -> None:
    """The read-out descends the same loss as the model: its gradient is autograd's."""

    def squared(output, target):
        return ((output - target) ** 2).sum(1).mean()

    torch.manual_seed(0)
    model = MLP(3, "tanh").double()
    x, y = torch.randn(5, INPUTS, dtype=torch.float64), torch.randn(5, CLASSES, dtype=torch.float64)
    program = rc.compile(model, x, wiring("depth1", 3, update="local_readout"), loss_fn=squared)
    program.step(x, y)
    with torch.no_grad():
        z1 = torch.tanh(model.l1(x))
    synapses = synapses_of(program, 3, 1)
    again = synapses.E.detach().clone().requires_grad_(True)
    squared(z1 @ again, y).backward()
    torch.testing.assert_close(synapses.E_T.grad.T, again.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("phi", ["relu", "tanh", "elu"])
def test_the_gradient_rule_is_d_times_phi_prime(phi: str) -> None:
    """Feedback alignment and DFA with dense synapses: e = d ⊙ φ'(h)."""
    for kind in ("chain", "depth1"):
        spec = wiring(kind, 5, {"rule": "gradient"}, update="fixed")
        model, program, net, x, y = make(5, phi, spec)
        loss = program.step(x, y)
        assert_same(program, model, reference(program, net, x, y, Rule(rule="gradient"), "lra"), loss)


@pytest.mark.parametrize("phi", ["tanh", "sigmoid"])
def test_small_beta_with_smooth_phi_is_the_gradient_rule(phi: str) -> None:
    """With small β, smooth φ and fixed synapses the method is FA (chain) and DFA (depth 1)."""
    for kind in ("chain", "depth1"):
        grads = []
        for rule in ({"beta": 1e-6, "normalize": True}, {"rule": "gradient"}):
            model, program, _, x, y = make(4, phi, wiring(kind, 4, rule, update="fixed"))
            program.step(x, y)
            grads.append([p.grad.clone() for p in model.parameters()])
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)


def test_transposed_synapses_and_small_beta_align_with_backprop() -> None:
    """Sanity oracle: chain, E = Wᵀ, β = 1e-3: cosine to backprop above 0.999 in every layer."""
    spec = wiring("chain", 6, {"beta": 1e-3, "normalize": True}, update="kolen_pollack")
    spec["synapses"]["init"] = "transpose"
    model, program, _, x, y = make(6, "tanh", spec)
    program.step(x, y)
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    for a, p in zip(ours, model.parameters(), strict=True):
        assert float(nn.functional.cosine_similarity(a.flatten(), p.grad.flatten(), dim=0)) > 0.999


def test_rescaled_displacements_have_the_length_of_h_times_e_of_the_output() -> None:
    options = {"beta": 0.1, "rescale": True}
    model, program, net, x, y = make(3, "tanh", wiring("depth1", 3, options))
    program.step(x, y)
    h, z = net.forward(x)
    e3 = torch.softmax(z[3], 1) - nn.functional.one_hot(y, CLASSES)
    for i in (1, 2):
        d = e3 @ synapses_of(program, 3, i).E.detach().T
        d = d * (h[i].norm(dim=1) * e3.norm(dim=1) / d.norm(dim=1))[:, None]
        e = PHI["tanh"](h[i]) - PHI["tanh"](h[i] - 0.1 * d)
        dW = e.T @ z[i - 1] / BATCH
        torch.testing.assert_close(getattr(model, f"l{i}").weight.grad, dW, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_mean_and_sum_reduction_give_the_same_targets(reduction: str) -> None:
    """e_L is per sample, so D(Θ) is equal and gradients differ by the batch size alone."""
    found = {}
    cross_entropy = partial(nn.functional.cross_entropy, reduction=reduction)
    for loss_fn in (nn.CrossEntropyLoss(reduction=reduction), cross_entropy):
        torch.manual_seed(0)
        model = MLP(4, "relu").double()
        x, y = torch.randn(8, INPUTS, dtype=torch.float64), torch.randint(CLASSES, (8,))
        program = rc.compile(model, x, "depth2_gap2", loss_fn=loss_fn)
        program.step(x, y)
        found[str(loss_fn)] = ([p.grad.clone() for p in program.parameters()], program.discrepancy.regions)
    torch.manual_seed(0)
    model = MLP(4, "relu").double()
    x, y = torch.randn(8, INPUTS, dtype=torch.float64), torch.randint(CLASSES, (8,))
    program = rc.compile(model, x, "depth2_gap2")
    program.step(x, y)
    scale = 8.0 if reduction == "sum" else 1.0
    for grads, terms in found.values():
        for a, p in zip(grads, program.parameters(), strict=True):
            torch.testing.assert_close(a, p.grad * scale, rtol=1e-9, atol=1e-12)
        assert terms == pytest.approx(program.discrepancy.regions, rel=1e-9)


def test_a_low_rank_kernel_is_its_product() -> None:
    spec = wiring("gap2", 5, update="kolen_pollack")
    spec["synapses"]["kernel"] = {"low_rank": 3}
    model, program, net, x, y = make(5, "relu", spec)
    pathways: dict[int, list] = {}
    for p in program.plan.pathways:
        s = program.synapses.get_submodule(p.name)
        pathways.setdefault(int(p.target[1:]), []).append((int(p.source[1:]), s.E.detach()))
    loss = program.step(x, y)
    expected = run(net, x, y, pathways, Rule(beta=0.1), "kolen_pollack")
    for i, dW in expected.W.items():
        torch.testing.assert_close(getattr(model, f"l{i}").weight.grad, dW, rtol=0, atol=1e-12)
    torch.testing.assert_close(loss, expected.loss)
    for (j, i), dE in expected.E.items():
        s = program.synapses.get_submodule(f"l{j}->l{i}")
        torch.testing.assert_close(s.A_T.grad.T, dE @ s.B_T.detach().T, rtol=0, atol=1e-12)
        torch.testing.assert_close(s.B_T.grad.T, dE.T @ s.A_T.detach().T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("update", ["local_readout", "local_loss"])
def test_read_outs_of_log_probabilities_are_those_of_logits(update: str) -> None:
    """The softmax at a model's end is part of the loss: F.nll_loss of a read-out itself would have no minimum."""
    torch.manual_seed(0)
    layers = [nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)]
    logits, logs = (nn.Sequential(*copy.deepcopy(layers), *end) for end in ((), (nn.LogSoftmax(1),)))
    x, y = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    wired = wiring("depth1", 2, update=update)
    programs = [rc.compile(logits, x, wired), rc.compile(logs, x, wired, loss_fn=F.nll_loss)]
    for program in programs:
        program.step(x, y)
    for a, b in zip(*(p.parameters() for p in programs), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
