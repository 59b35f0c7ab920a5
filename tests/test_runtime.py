"""What a program does while it runs: exactly the FLOPs it promised, one graph per region, nothing left behind."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from zoo import ZOO

import reclra_compile as rc
from reclra_compile.layers import Sign
from reclra_compile.runtime.loss import reduction_of


class Calls(TorchDispatchMode):
    """Counts operator calls by name."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def mlp(phi=nn.ReLU, width: int = 16, depth: int = 4) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(12 if k == 0 else width, width), phi()]
    return nn.Sequential(*layers, nn.Linear(width, 5))


def batch(n: int = 8):
    torch.manual_seed(1)
    return torch.randn(n, 12), torch.randint(5, (n,))


@pytest.mark.parametrize("wiring", rc.shipped())
@pytest.mark.parametrize("name", ["mlp", "conv_residual", "residual"])
def test_a_step_takes_exactly_the_flops_of_the_plan(name: str, wiring: str) -> None:
    torch.manual_seed(0)
    model, inputs = (mlp(), (batch()[0],)) if name == "mlp" else ZOO[name]()
    y = torch.randint(4, (len(inputs[0]),))
    program = rc.compile(model, inputs, wiring)
    program.step(*inputs, y)  # the first step also finds out the loss's reduction
    with FlopCounterMode(display=False) as counter:
        program.step(*inputs, y)
    assert counter.get_total_flops() == program.plan.cost.flops


def test_backprop_costs_what_autograd_costs() -> None:
    model, (x, y) = mlp(), batch()
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(x), y).backward()
    plan = rc.plan_for(model, x, "backprop")
    assert plan.cost.flops == plan.cost.backprop_flops == counter.get_total_flops()


def test_output_fed_regions_never_compute_dX() -> None:
    """Matrix products per region: one forward, one for ΔW; three thin ones for a read-out. No dX.

    The second step's synapse updates are added to the first's within their product.
    """
    model, (x, y) = mlp(depth=6), batch()
    program = rc.compile(model, x, "depth1")
    program.step(x, y)
    with Calls() as calls:
        program.step(x, y)
    regions, pathways = 7, 6
    assert calls.count["addmm"] == regions + 2 * pathways  # a read-out has a bias
    assert calls.count["mm"] == regions + pathways


def test_inner_regions_are_fed_without_phi_prime() -> None:
    """No derivative kernel of any activation runs under the lra rule."""
    model, (x, y) = mlp(nn.Tanh), batch()
    program = rc.compile(model, x, "depth2_gap2")
    with Calls() as calls:
        program.step(x, y)
    assert not [n for n in calls.count if n in ("tanh_backward", "threshold_backward", "sigmoid_backward")]


@pytest.mark.parametrize("form", ["module", "functional", "method"])
def test_an_in_place_activation_does_not_overwrite_h(form: str) -> None:
    class Net(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.out = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 5)
            self.in_place, self.phi = in_place, nn.ReLU(inplace=in_place)

        def activate(self, h):
            if form == "module":
                return self.phi(h)
            if form == "functional":
                return F.relu(h, inplace=self.in_place)
            return h.relu_() if self.in_place else h.relu()

        def forward(self, x):
            return self.out(self.activate(self.b(self.activate(self.a(x)))))

    x, y = batch()
    grads = []
    for in_place in (False, True):
        model = Net(in_place)
        program = rc.compile(model, x, "lra_e")
        program.step(x, y)
        assert model.phi.inplace is in_place
        grads.append([p.grad for p in program.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("wiring", ["backprop", "depth1", "depth2_gap2", "lra_e", "feedback_alignment"])
def test_batch_norm_counts_each_batch_once_and_dropout_draws_one_mask(wiring: str) -> None:
    torch.manual_seed(0)
    model, (x,) = ZOO["batch_norm_and_dropout"]()
    program = rc.compile(model, x, wiring)
    with Calls() as calls:
        for step in range(1, 4):
            program.step(x, torch.randint(4, (len(x),)))
            assert {int(m.num_batches_tracked) for m in model if isinstance(m, nn.BatchNorm1d)} == {step}
    drawn = sum(n for name, n in calls.count.items() if name in ("bernoulli_", "native_dropout"))
    assert drawn == 3 * 3


def test_regions_share_no_graph_and_nothing_outlives_the_step() -> None:
    """Every tensor of the step but the loss is gone when it ends, and the loss carries no graph."""
    model, (x, y) = mlp(), batch()
    program = rc.compile(model, x, "depth2_gap2")
    program.step(x, y)
    seen: list[weakref.ref] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape[:1] == (len(x),):
                seen.append(weakref.ref(result))
            return result

    with Watch():
        loss = program.step(x, y)
    gc.collect()
    assert not loss.requires_grad
    assert loss.grad_fn is None
    assert len(seen) > 20
    inputs = {id(x), id(y)}
    assert not [r for r in seen if r() is not None and id(r()) not in inputs]


def test_values_are_freed_when_their_last_reader_is_done() -> None:
    """In a deep chain with one wave the live batch-sized tensors shrink as the error phase proceeds."""
    model, (x, _) = mlp(depth=20), batch()
    program = rc.compile(model, x, "depth1")
    alive: set[str] = set()
    peak_after_forward = 0
    for task in program.plan.tasks:
        alive |= set(task.writes)
        if task.kind == "X":
            alive -= set(task.reads)
        if task.kind == "L":
            peak_after_forward = len(alive)
    assert peak_after_forward > 40
    assert not [v for v in alive if not v.startswith(("g.", "loss"))]


def test_frozen_regions_and_parameters_do_not_learn() -> None:
    x, y = batch()
    model = mlp()
    program = rc.compile(
        model, x, {"version": 1, "frozen": "2", "pathways": [{"from": "output", "to": "all"}]}
    )
    program.step(x, y)
    assert model[2].weight.grad is None
    assert model[0].weight.grad is not None
    model = mlp()
    model[4].requires_grad_(False)
    rc.compile(model, x, "depth1").step(x, y)
    assert model[4].weight.grad is None
    assert model[6].weight.grad is not None


def test_a_parameter_frozen_later_stays_without_gradient() -> None:
    model, (x, y) = mlp(), batch()
    program = rc.compile(model, x, "backprop")
    model[2].weight.requires_grad_(False)
    program.step(x, y)
    assert model[2].weight.grad is None
    assert model[2].bias.grad is not None


def test_synapses_depend_on_the_seed_and_the_pathway_alone() -> None:
    model, (x, _) = mlp(), batch()
    first = rc.compile(model, x, "depth2", seed=1).synapses.state_dict()
    torch.manual_seed(99)
    again = rc.compile(model, x, "depth2", seed=1).synapses.state_dict()
    other = rc.compile(model, x, "depth2", seed=2).synapses.state_dict()
    chain = rc.compile(model, x, "lra_e", seed=1).synapses.state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not any(torch.equal(first[k], other[k]) for k in first if k.endswith("E_T"))
    assert torch.equal(first["2->0.E_T"], chain["2->0.E_T"])


def test_fixed_synapses_are_no_parameters() -> None:
    model, (x, y) = mlp(), batch()
    program = rc.compile(model, x, "direct_feedback_alignment")
    assert list(program.synapse_parameters()) == []
    assert sum(p.numel() for p in program.synapses.parameters()) == 4 * 16 * 5
    program.step(x, y)
    assert all(p.grad is None for p in program.synapses.parameters())


def test_kolen_pollack_mirrors_get_the_forward_gradient() -> None:
    model, (x, y) = mlp(), batch()
    program = rc.compile(model, x, "kolen_pollack")
    program.step(x, y)
    made = dict(program.synapses.named_parameters())
    assert set(made) == {f"mirror {k}.{k}" for k in (2, 4, 6, 8)}
    for k in (2, 4, 6, 8):
        assert torch.equal(made[f"mirror {k}.{k}"].grad, model[k].weight.grad)


def test_kolen_pollack_converges_to_the_transpose() -> None:
    """With the same updates and decay W − Bᵀ decays to nothing, so the angle falls below 5°."""
    torch.manual_seed(0)
    model, (x, y) = mlp(nn.Tanh), batch(64)
    program = rc.compile(model, x, "kolen_pollack")
    optimizer = torch.optim.SGD(program.parameters(), 0.1, weight_decay=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        program.step(x, y)
        optimizer.step()
    B = program.synapses.get_submodule("mirror 4").get_parameter("4").detach()
    cosine = F.cosine_similarity(B.flatten(), model[4].weight.detach().flatten(), dim=0)
    assert float(torch.rad2deg(torch.acos(cosine))) < 5


def test_sign_symmetry_sends_signs_back() -> None:
    model, (x, y) = mlp(depth=1), batch()
    program = rc.compile(model, x, "sign_symmetry")
    program.step(x, y)
    with torch.no_grad():
        h = model[0](x)
        e = (torch.softmax(model[2](h.relu()), 1) - F.one_hot(y, 5)) / len(x)
        W = model[2].weight
        d = e @ (W.sign() * W.abs().mean())
    torch.testing.assert_close(model[0].weight.grad, (d * (h > 0)).T @ x)


def test_e6_stops_at_its_growth_limit() -> None:
    torch.manual_seed(0)
    model, (x, y) = mlp(), batch()
    spec = {"version": 1, "pathways": [{"from": "output", "to": "all", "kernel": "dense"}],
            "synapses": {"update": {"lra": {"gamma": 50.0, "growth_limit": 3.0}}, "init": {"normal": 0.5}}}  # fmt: skip
    program = rc.compile(model, x, spec)
    optimizer = torch.optim.SGD(program.synapse_parameters(), 1.0)
    start = {n: float(p.detach().norm()) for n, p in program.synapses.named_parameters()}
    for _ in range(60):
        program.zero_grad()
        program.step(x, y)
        optimizer.step()
    for n, p in program.synapses.named_parameters():
        assert p.isfinite().all()
        assert float(p.detach().norm()) / start[n] > 3.0
        assert torch.equal(p.grad, torch.zeros_like(p)), f"{n} still grows"


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (F.cross_entropy, "mean"),
        (nn.CrossEntropyLoss(reduction="sum"), "sum"),
        (lambda o, t: F.cross_entropy(o, t, reduction="sum"), "sum"),
        (lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1), "mean"),
        (lambda o, t: F.multi_margin_loss(o, t), "mean"),
    ],
)
def test_the_reduction_is_found_out(loss, expected: str) -> None:
    torch.manual_seed(0)
    assert reduction_of(loss, torch.randn(6, 5), torch.randint(5, (6,))) == expected


def test_a_loss_that_is_neither_mean_nor_sum_is_refused() -> None:
    def odd(o, t):
        return F.cross_entropy(o, t, reduction="sum") / len(o) ** 0.5

    model, (x, y) = mlp(), batch()
    with pytest.raises(rc.TrainingError, match="neither a mean nor a sum"):
        rc.compile(model, x, "depth1", loss_fn=odd).step(x, y)
    rc.compile(model, x, "depth1", loss_fn=odd, reduction="mean").step(x, y)


def test_a_loss_that_is_not_a_scalar_is_refused() -> None:
    model, (x, y) = mlp(), batch()
    with pytest.raises(rc.TrainingError, match="not a scalar"):
        rc.compile(model, x, "depth1", loss_fn=nn.CrossEntropyLoss(reduction="none")).step(x, y)


def test_the_wrong_number_of_arguments_is_refused() -> None:
    model, (x, y) = mlp(), batch()
    program = rc.compile(model, x, "depth1")
    with pytest.raises(rc.TrainingError, match="takes 1 input"):
        program.step(x)
    with pytest.raises(rc.TrainingError, match="no step"):
        _ = program.discrepancy
    program.step(x, y)
    assert program.discrepancy.total > 0


def test_synapse_state_is_restored_and_checked() -> None:
    model, (x, _) = mlp(), batch()
    a, b = rc.compile(model, x, "depth1", seed=0), rc.compile(model, x, "depth1", seed=1)
    b.load_state_dict(a.state_dict())
    for p, q in zip(a.synapses.parameters(), b.synapses.parameters(), strict=True):
        assert torch.equal(p, q)
    with pytest.raises(rc.PlanError, match="another wiring"):
        rc.compile(model, x, "lra_e").load_state_dict(a.state_dict())
    with pytest.raises(rc.PlanError, match="another model"):
        rc.compile(mlp(width=17), x, "depth1").load_state_dict(a.state_dict())


def test_the_first_region_that_is_not_finite_is_named() -> None:
    model, (x, _) = mlp(), batch()
    program = rc.compile(model, x, "depth1")
    assert program.first_non_finite(x) is None
    with torch.no_grad():
        model[4].bias[3] = torch.inf
    assert program.first_non_finite(x) == "4"
    assert rc.compile(mlp(), x, "depth1").first_non_finite(x * torch.inf) == "0"


def test_literal_sign_units_train_at_depth_1() -> None:
    """With φ = sign both in the forward pass and in the target: no derivative exists, yet the loss falls."""
    torch.manual_seed(0)
    model, (x, y) = mlp(Sign, width=64), batch(32)
    spec = {"version": 1, "target": {"beta": 0.1, "normalize": False, "rescale": True},
            "pathways": [{"from": "output", "to": "all"}], "synapses": {"update": "local_readout"}}  # fmt: skip
    program = rc.compile(model, x, spec)
    optimizer = torch.optim.Adam(program.parameters(), 3e-3)
    losses, moved = [], 0.0
    for _ in range(80):
        optimizer.zero_grad()
        losses.append(float(program.step(x, y)))
        moved += float(model[0].weight.grad.abs().max())
        optimizer.step()
    assert moved > 0
    assert losses[-1] < 0.3 * losses[0]


def test_sign_symmetry_keeps_no_second_copy_of_the_weights() -> None:
    """Signs are taken when errors come back: what each microbatch in flight keeps are activities."""
    model, (x, y) = mlp(), batch()
    program = rc.compile(model, x, "sign_symmetry_bp")
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: list[torch.Size] = []

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.untyped_storage().data_ptr() not in own:
            kept.append(t.shape)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        program.step(x, y)
    assert kept
    assert not {p.shape for p in model.parameters() if p.ndim > 1} & set(kept)


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d])
def test_gradients_of_convolutions_in_groups_cost_what_the_convolution_does(kind: type[nn.Module], groups: int) -> None:
    layers = [kind(8, 8, 3, padding=1, groups=groups), nn.ReLU(), kind(8, 8, 3, groups=groups)]
    x = torch.zeros(2, 8, *[6] * (2 if "2d" in kind.__name__ else 1))
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4))
    model(x)
    first, second, _ = rc.plan_for(model, x, "backprop").regions
    assert first.weight_flops == first.forward_flops > 0
    assert second.weight_flops == second.forward_flops == second.input_flops > 0
