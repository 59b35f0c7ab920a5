"""A region's own state: what a second forward pass, mixed precision or an in-place operation could spoil."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, ResNet
from hypothesis import given, settings
from hypothesis import strategies as st
from test_architectures import EXACT, build, same_steps
from torch import nn

import reclra_compile as rc
from reclra_compile.spec.load import load_wiring
from reclra_compile.spec.schema import MemorySpec

WIRINGS = ("backprop", "depth1", "lra_e", "blocks", "blocks_nested", "feedback_alignment")


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.3),
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


X, Y = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1])


def compiled(model: nn.Module, wiring: str, budget: int | None = None, x=X, **options) -> rc.Program:
    spec = load_wiring(wiring).wiring.model_copy(update={"memory": MemorySpec(activations=budget)})
    return rc.compile(model, x, spec, **options)


@pytest.mark.parametrize("budget", [None, 1])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_batch_statistics_change_exactly_once_per_step(wiring: str, budget: int | None) -> None:
    model = convolutional()
    twin = copy.deepcopy(model)
    program = compiled(model, wiring, budget)
    for step in range(3):
        torch.manual_seed(step)
        program.step(X, Y)
        torch.manual_seed(step)
        twin(X)
        assert int(model[1].num_batches_tracked) == step + 1
    for a, b in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("budget", [None, 1])
def test_one_dropout_mask_per_step(budget: int | None) -> None:
    """The mask of the forward pass is that of the update: a dropped unit's weights get no gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    program = compiled(model, "backprop", budget, x=torch.randn(1, 6))
    for seed in range(20):
        program.zero_grad()
        torch.manual_seed(seed)
        program.step(torch.ones(1, 6), torch.tensor([0]))
        torch.manual_seed(seed)
        dropped = F.dropout(torch.ones(1, 8), 0.5, training=True)[0] == 0
        assert torch.equal(model[0].bias.grad == 0, dropped)
        assert torch.equal(model[2].weight.grad[0] == 0, dropped)


@pytest.mark.parametrize("wiring", ["depth1", "backprop", "lra_e"])
def test_an_in_place_activation_leaves_the_pre_activation_alone(wiring: str) -> None:
    """The same network with and without inplace=True learns the same."""
    programs = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ELU(inplace=inplace), nn.Linear(8, 8), nn.ReLU(inplace=inplace),
                              nn.Linear(8, 3))  # fmt: skip
        programs.append(rc.compile(model, torch.randn(4, 6), wiring))
        programs[-1].step(torch.ones(4, 6), torch.tensor([0, 1, 2, 0]))
    for a, b in zip(programs[0].parameters(), programs[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_tied_weights_accumulate_over_their_regions() -> None:
    model, inputs, y = build("gpt")
    twin = copy.deepcopy(model)
    program = rc.compile(model, inputs, "backprop", loss_fn=F.mse_loss)
    torch.manual_seed(0)
    program.step(*inputs, y)
    torch.manual_seed(0)
    F.mse_loss(twin(*inputs), y).backward()
    assert model.lm_head.weight is model.wte.weight
    torch.testing.assert_close(model.wte.weight.grad, twin.wte.weight.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_eval_mode_is_left_as_it_is(name: str) -> None:
    model, inputs = ARCHITECTURES[name]()
    model.eval()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model(*inputs)
    rc.compile(model, inputs, "backprop", loss_fn=F.mse_loss)
    assert not any(m.training for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(model(*inputs), expected, rtol=0, atol=0)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_channels_last_is_kept(wiring: str) -> None:
    # 8 filters: on CPUs with AVX2 but no AVX-512, oneDNN's backward kernels for this layout write out of bounds
    # where the channels are no multiple of 8 (seen with torch 2.13.0)
    model, x = ResNet(width=8), torch.randn(3, 3, 8, 8)
    form = torch.channels_last
    model, x = model.to(memory_format=form), x.to(memory_format=form)
    seen: list[bool] = []
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            m.register_forward_hook(lambda m, i, o: seen.append(o.is_contiguous(memory_format=form)))
            m.weight.register_hook(lambda g: seen.append(g.is_contiguous(memory_format=form)))
    program = rc.compile(model, x, wiring)
    seen.clear()
    program.step(x, torch.tensor([0, 1, 2]))
    if wiring not in ("feedback_alignment",):  # there convolutions are functions, which no hook sees
        assert len(seen) >= 15
    assert all(seen)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_autocast_to_bfloat16(wiring: str) -> None:
    """Forward pass and loss as the user's under autocast; backprop gives autograd's gradients bit for bit."""
    model = convolutional()
    twin = copy.deepcopy(model)
    program = rc.compile(model, X, wiring)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = program.step(X, Y)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.cross_entropy(twin(X), Y)
    expected.backward()
    assert torch.equal(loss, expected.detach())
    assert all(p.grad.dtype == torch.float32 for p in program.parameters() if p.grad is not None)
    if wiring == "backprop":
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)


def test_targets_under_autocast_are_those_of_full_precision() -> None:
    """β d is far below bfloat16's resolution of h: with z − y in bfloat16 the errors would be noise or zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    x, y = torch.randn(64, 16), torch.randint(0, 4, (64,))
    program = rc.compile(model, x, "depth1")
    with torch.no_grad():
        for p in program.synapses.parameters():
            p.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    program.step(x, y)
    full = model[0].weight.grad.clone()
    program.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        program.step(x, y)
    assert F.cosine_similarity(full.flatten(), model[0].weight.grad.flatten(), dim=0) > 0.999


def test_a_weight_that_is_changed_during_a_step_is_noticed() -> None:
    """A step of the optimizer between a region's forward pass and its update fails; it never mixes two weights."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))

    def loss_fn(output, target):
        with torch.no_grad():
            model[2].weight.add_(0.0)
        return F.cross_entropy(output, target)

    program = rc.compile(model, torch.randn(2, 4), "backprop", loss_fn=loss_fn, reduction="mean")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        program.step(torch.randn(2, 4), torch.tensor([0, 1]))


# Memory


@pytest.mark.parametrize(
    "wiring", ["blocks", *(pytest.param(w, marks=pytest.mark.slow) for w in ("backprop", "depth1"))]
)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_recomputing_changes_nothing(name: str, wiring: str) -> None:
    """Bit for bit: loss, gradients, buffers and random state; and no activation is kept."""
    model, inputs, y = build(name)
    twin = copy.deepcopy(model)
    keep = compiled(model, wiring, None, inputs, loss_fn=F.mse_loss)
    again = compiled(twin, wiring, 1, inputs, loss_fn=F.mse_loss)
    assert again.plan.cost.saved_bytes == 0 <= keep.plan.cost.saved_bytes
    assert rc.Plan.parse(str(again.plan)) == again.plan
    results = []
    for program in (keep, again):
        for step in range(2):
            torch.manual_seed(step)
            program.zero_grad()
            loss = program.step(*inputs, y)
        results.append((loss, torch.get_rng_state()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    for a, b in zip([*model.parameters()], [*twin.parameters()], strict=True):
        assert torch.equal(a.grad, b.grad)
    for a, b in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b)


def test_a_budget_recomputes_what_saves_most() -> None:
    model, inputs = ARCHITECTURES["resnet"]()
    kept = []
    for budget in (10**9, 30_000, 10_000, 1):
        plan = compiled(model, "blocks", budget, inputs).plan
        assert plan.cost.saved_bytes <= budget
        kept.append(sum(not t.recompute for t in plan.targets))
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[-1]


def test_named_regions_are_recomputed() -> None:
    model, inputs = ARCHITECTURES["resnet"]()
    wiring = {"version": 1, "regions": {"granularity": "block"}, "memory": {"recompute": "layer1.*"}, **EXACT}
    plan = rc.plan_for(model, inputs, wiring)
    assert [t.region for t in plan.targets if t.recompute] == ["layer1.1", "layer1.0"]
    with pytest.raises(rc.WiringError, match="W020"):
        rc.plan_for(model, inputs, {**wiring, "memory": {"recompute": "layer9"}})


def kept_bytes(run) -> int:
    """Bytes of the storages that autograd keeps while `run` runs, each once."""
    seen: dict[int, int] = {}
    alive = []

    def note(t):
        alive.append(t)
        seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        run()
    return sum(seen.values())


@pytest.mark.parametrize("wiring", ["backprop", "depth1", "blocks"])
@pytest.mark.parametrize("name", ["resnet", "vit", "mixer", "bert", "autoencoder"])
def test_a_program_keeps_no_more_than_autograd(name: str, wiring: str) -> None:
    """Saved activations, counted by storage: regions that cut the graph add nothing."""
    model, inputs, y = build(name, torch.float32)
    twin = copy.deepcopy(model)
    program = rc.compile(model, inputs, wiring, loss_fn=F.mse_loss)
    program.step(*inputs, y)
    ours = kept_bytes(lambda: program.step(*inputs, y))
    theirs = kept_bytes(lambda: F.mse_loss(twin(*inputs), y).backward())
    readouts = sum(p.update == "local_loss" for p in program.plan.pathways)
    # each read-out has a loss of its own, which keeps its output and target, a few numbers a sample
    assert ours <= theirs + readouts * 2 * y.numel() * y.element_size()


# Random networks


class Random(nn.Module):
    """A drawn DAG: layers, adds, concatenations, gates, shared modules, norms, activations in place."""

    def __init__(self, steps: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.steps = steps
        self.shared = nn.Linear(6, 6)
        self.layers = nn.ModuleList(
            nn.Linear(12 if kind == "cat" else 6, 6) for kind, _, _ in steps
        )
        self.norms = nn.ModuleList(nn.LayerNorm(6) if kind == "norm" else nn.Identity() for kind, _, _ in steps)
        self.first, self.out = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        found = [torch.tanh(self.first(x))]
        for (kind, a, b), layer, norm in zip(self.steps, self.layers, self.norms, strict=True):
            p, q = found[a % len(found)], found[b % len(found)]
            if kind == "add":
                y = F.relu(layer(p) + q)
            elif kind == "cat":
                y = torch.sigmoid(layer(torch.cat([p, q], dim=1)))
            elif kind == "gate":
                y = layer(p) * torch.sigmoid(q)
            elif kind == "shared":
                y = F.elu(self.shared(p) + layer(q), inplace=True)
            elif kind == "norm":
                y = p + layer(norm(q))
            else:
                y = F.gelu(layer(p))
            found.append(y)
        return self.out(sum(found))


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "cat", "gate", "shared", "norm", "layer"]), st.integers(0, 5), st.integers(0, 5)),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=25)
@given(STEPS, st.sampled_from(["layer", "block", "groups"]), st.data())
def test_random_networks_are_transparent(steps, granularity: str, data: st.DataObject) -> None:
    torch.manual_seed(0)
    model = Random(steps).double()
    x, y = torch.randn(3, 4, dtype=torch.double), torch.randn(3, 3, dtype=torch.double)
    regions: dict = {"granularity": granularity}
    if granularity == "groups":
        count = len(rc.plan_for(model, x, {"version": 1, "regions": {"granularity": "block"}, **EXACT}).regions)
        regions = {"granularity": {"groups": data.draw(st.integers(1, count))}}
    twin = copy.deepcopy(model)
    program = rc.compile(model, x, {"version": 1, "regions": regions, **EXACT}, loss_fn=F.mse_loss)
    same_steps(program, twin, (x,), y, 1e-9)


# Parameters that nothing reaches


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.unused, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        self.unused(x)
        return self.out(torch.relu(self.a(x)))


def test_parameters_that_the_output_does_not_depend_on_are_listed() -> None:
    plan = rc.plan_for(Idle(), torch.zeros(2, 4), "backprop")
    assert plan.idle == ("unused.weight", "unused.bias")
    assert any("unused.weight, unused.bias" in w.message for w in plan.warnings)
    assert rc.Plan.parse(str(plan)) == plan


@pytest.mark.parametrize("mode", ["freeze", "backprop"])
def test_regions_that_no_error_reaches(mode: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    wiring = {"version": 1, "pathways": [{"from": "output", "to": "2"}]}
    x, y = torch.randn(2, 4), torch.tensor([0, 1])
    with pytest.raises(rc.WiringError, match=r"W027.*'0'"):
        rc.compile(model, x, wiring)
    program = rc.compile(model, x, wiring, unreached=mode)
    program.step(x, y)
    assert (model[0].weight.grad is None) == (mode == "freeze")
    assert model[2].weight.grad is not None
