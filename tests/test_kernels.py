"""Kernels for feature maps: adjoint to their read-outs, exact updates, and what `auto` chooses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import reclra_compile as rc
from reclra_compile.ir import Pathway, Region
from reclra_compile.rules import blocked
from reclra_compile.rules.maps import make, pool, spread
from reclra_compile.runtime import tasks
from reclra_compile.spec.maps import common, geometry, pooled
from reclra_compile.spec.synapses import choose, costed, shaped

VECTOR = Region("vector", "Linear", "relu", (), ("z",), (7,))
MAPS = {
    "map": Region("map", "Conv2d", "relu", (), ("z",), (3, 8, 6)),
    "odd map": Region("odd", "Conv2d", "relu", (), ("z",), (2, 7, 5)),
    "sequence": Region("sequence", "Linear", "relu", (), ("z",), (9, 4), channel_axis=1),
    "signal": Region("signal", "Conv1d", "relu", (), ("z",), (4, 9)),
    "volume": Region("volume", "Conv3d", "relu", (), ("z",), (2, 4, 5, 3)),
}


def drawn(p: Pathway, a: Region, b: Region) -> object:
    p = costed(Pathway(**{**_fields(p), "init": "normal", "scale": 1.0}), a, b, 1, first=True)
    return make(p, a, b, torch.Generator().manual_seed(0), None).double()


def _fields(p: Pathway) -> dict:
    return {name: getattr(p, name) for name in p.__slots__}


CASES = [
    (kernel, target, source)
    for target in MAPS
    for source in ("vector", target, "odd map")
    for kernel in ("dense", "low_rank", "channel", "spatial")
]


@pytest.mark.parametrize(("kernel", "target", "source"), CASES)
def test_a_displacement_is_the_adjoint_of_the_read_out(kernel: str, target: str, source: str) -> None:
    a, b = MAPS[target], MAPS.get(source, VECTOR)
    E = drawn(shaped(kernel, a, b, cells=3, rank=2), a, b)
    e, z = torch.randn(5, *b.shape, dtype=torch.double), torch.randn(5, *a.shape, dtype=torch.double)
    d, r = E.apply_to(e), E.read(z)
    assert d.shape == z.shape and r.shape == e.shape
    torch.testing.assert_close((d * z).sum(), (e * r).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "target", "source"), CASES)
def test_an_update_is_the_gradient_of_the_read_out(kernel: str, target: str, source: str) -> None:
    """ΔE of the factors (z, v) is ∂⟨v, r⟩/∂E, and Σ v that of the bias (E9)."""
    a, b = MAPS[target], MAPS.get(source, VECTOR)
    E = drawn(shaped(kernel, a, b, cells=2, rank=2), a, b)
    v, z = torch.randn(5, *b.shape, dtype=torch.double), torch.randn(5, *a.shape, dtype=torch.double)
    columns = E.source.rows(v).shape[1] if hasattr(E, "source") else v.shape[1]
    bias = nn.Parameter(torch.zeros(columns, dtype=torch.double))
    expected = torch.autograd.grad((E.read(z, bias) * v).sum(), [*E.parameters(), bias])
    E.accumulate(z, v, bias)
    for p, g in zip([*E.parameters(), bias], expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-10, atol=1e-12)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3))
def test_spreading_is_the_adjoint_of_pooling(sizes: list[tuple[int, int]]) -> None:
    grid, cells = tuple(max(s) for s in sizes), tuple(min(s) for s in sizes)
    x = torch.randn(2, 3, *grid, dtype=torch.double)
    y = torch.randn(2, 3, *cells, dtype=torch.double)
    torch.testing.assert_close((pool(x, cells) * y).sum(), (x * spread(y, grid)).sum(), rtol=1e-10, atol=1e-12)


def test_e9_on_a_map_as_plain_loops() -> None:
    """ΔE_{L→i} = mean_n P(z_i) (softmax(Eᵀ P(z_i) + b) − y)ᵀ with P the mean over each cell."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).double()
    x, y = torch.randn(6, 2, 4, 4, dtype=torch.double), torch.randint(0, 4, (6,))
    wiring = {"version": 1, "pathways": [{"from": "output", "to": "all", "kernel": {"spatial": 2}}]}
    program = rc.compile(model, x, wiring)
    (core,) = (m for m in program.synapses.modules() if hasattr(m, "E_T"))
    E = core.E.detach().clone()
    program.step(x, y)
    z = torch.relu(model[0](x)).detach()
    expected = torch.zeros_like(E)
    for n in range(6):
        cells = [z[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for c in range(3) for i in (0, 1) for j in (0, 1)]
        P = torch.stack(cells)
        error = torch.softmax(E.t() @ P, 0) - F.one_hot(y[n], 4)
        expected += torch.outer(P, error) / 6
    torch.testing.assert_close(core.E_T.grad.t(), expected, rtol=1e-10, atol=1e-12)


def test_a_displacement_on_a_map_is_spread_over_its_cells() -> None:
    a, b = MAPS["map"], VECTOR
    E = drawn(shaped("spatial", a, b, cells=2), a, b)
    e = torch.randn(1, 7, dtype=torch.double)
    d = E.apply_to(e)[0]
    flat = (E.E @ e[0]).view(3, 2, 2)
    for c in range(3):
        for i in range(8):
            for j in range(6):
                torch.testing.assert_close(d[c, i, j], flat[c, i // 4, j // 3] / 12)


# Transposed convolutions


@pytest.mark.parametrize(("size", "window", "stride", "padding"), [
    (8, 3, 1, 1), (8, 3, 2, 1), (9, 3, 2, 1), (8, 5, 1, 2), (8, 1, 2, 0), (8, 4, 4, 0), (7, 3, 1, 1),
])  # fmt: skip
def test_kernel_conv_with_the_forward_filters_is_backprop(size: int, window: int, stride: int, padding: int) -> None:
    """With E = W the displacement is dX, and the Kolen–Pollack update (E8) is ΔW."""
    layer = nn.Conv2d(3, 4, window, stride, padding, bias=False).double()
    x = torch.randn(2, 3, size, size, dtype=torch.double, requires_grad=True)
    h = layer(x)
    e = torch.randn_like(h)
    dx, dw = torch.autograd.grad(h, [x, layer.weight], e)
    a = Region("a", "Conv2d", "relu", (), ("z",), (3, size, size))
    b = Region("b", "Conv2d", "relu", (), ("y",), tuple(h.shape[1:]), window=(window, window))
    p = Pathway(**{**_fields(shaped("conv", a, b)), "init": "transpose"})
    E = make(p, a, b, torch.Generator(), layer.weight).double()
    torch.testing.assert_close(E.apply_to(e), dx, rtol=1e-10, atol=1e-12)
    E.accumulate(x.detach(), e)
    torch.testing.assert_close(E.weight.grad, dw, rtol=1e-10, atol=1e-12)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2))
def test_every_convolution_has_a_way_back(size: int, window: int, stride: int, padding: int) -> None:
    """Where a forward convolution leads from one map to another, a transposed one of its window leads back."""
    out = (size + 2 * padding - window) // stride + 1
    if size + 2 * padding < window or padding > window // 2:
        return
    found = geometry((size,), (out,), (window,))
    if found is None:
        assert stride > window or out * stride != size, "only where positions are skipped"
        return
    (s,), (p,), (extra,) = found
    assert (out - 1) * s - 2 * p + window + extra == size and 0 <= extra < max(s, 1)


def test_conv_between_maps_that_do_not_fit_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    wiring = {"version": 1, "pathways": [{"from": "output", "to": "all", "kernel": "conv"}]}
    with pytest.raises(rc.WiringError, match="W037"):
        rc.compile(model, torch.randn(2, 2, 6, 6), wiring)


# What `auto` chooses


def region(name: str, shape: tuple[int, ...], **facts: object) -> Region:
    return Region(name, "Conv2d", "relu", (), (f"z.{name}",), shape, **facts)  # type: ignore[arg-type]


LIMIT = 16_000_000


def test_auto_reads_a_map_on_the_finest_cells() -> None:
    p, reason = choose(region("a", (16, 32, 32)), VECTOR, labelled=True, cells=8, limit=LIMIT)
    assert (p.kernel, p.grid) == ("spatial", (8, 8)) and "8 cells" in reason
    small, _ = choose(region("a", (16, 4, 4)), VECTOR, labelled=True, cells=8, limit=LIMIT)
    assert small.grid == (4, 4), "never more cells than positions"


def test_auto_between_neighbouring_maps() -> None:
    a, b = region("a", (3, 8, 8)), region("b", (4, 4, 4), window=(3, 3))
    assert choose(a, b, labelled=False, cells=8, limit=LIMIT)[0].kernel == "conv"
    normed = region("b", (4, 4, 4), window=(3, 3), norm=True)
    assert choose(a, normed, labelled=False, cells=8, limit=LIMIT)[0].kernel == "spatial"


def test_auto_between_sequences_works_position_by_position() -> None:
    a, b = region("a", (9, 4), channel_axis=1), region("b", (9, 11), channel_axis=1)
    for labelled in (False, True):
        p, _ = choose(a, b, labelled, cells=8, limit=LIMIT)
        assert (p.kernel, p.grid, p.source_grid) == ("channel", (9,), (9,))


def test_auto_never_makes_a_matrix_above_the_limit() -> None:
    """1000 classes into 56×56×64: dense would have 200 million entries."""
    output = Region("fc", "Linear", "identity", (), ("y",), (1000,))
    p, _ = choose(region("stem", (64, 56, 56)), output, labelled=True, cells=8, limit=LIMIT)
    assert 64 * math.prod(p.grid) * 1000 <= LIMIT
    p, _ = choose(region("stem", (64, 56, 56)), output, labelled=True, cells=8, limit=100_000)
    assert p.kernel == "channel"


class ImageNet(nn.Sequential):
    """A few convolutions at ImageNet's size, 1000 classes."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 64, 7, 4, 3), nn.ReLU(), nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(128, 256, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 1000),
        )  # fmt: skip


def test_auto_keeps_to_a_memory_for_all_pathways_together() -> None:
    with torch.device("meta"):
        model, x = ImageNet(), torch.zeros(2, 3, 224, 224)
    wiring = {"version": 1, "pathways": [{"from": "output", "to": "all"}]}
    sizes = []
    for memory in ("1GiB", "40MiB", "8MiB", "2MiB"):
        plan = rc.plan_for(model, x, {**wiring, "synapses": {"memory": memory}})
        sizes.append(plan.pathways[-1].grid)
        assert plan.cost.synapse_bytes <= rc_bytes(memory)
    assert sizes == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert all(p.reason for p in plan.pathways)
    default = rc.plan_for(model, x, wiring)
    assert default.cost.synapse_bytes <= 64 * 2**20


def rc_bytes(text: str) -> int:
    return int(text[:-3]) * {"MiB": 2**20, "GiB": 2**30}[text[-3:]]


def test_explicit_dense_at_imagenet_size_is_an_error() -> None:
    with torch.device("meta"):
        model, x = ImageNet(), torch.zeros(2, 3, 224, 224)
    with pytest.raises(rc.WiringError, match=r"W030.*200,704,000"):
        rc.plan_for(model, x, {"version": 1, "pathways": [{"from": "output", "to": "all", "kernel": "dense"}]})


def test_vectors_become_low_rank_only_for_a_memory_that_was_asked_for() -> None:
    model = nn.Sequential(nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 200))
    wiring = {"version": 1, "pathways": [{"from": "output", "to": "all"}]}
    x = torch.zeros(2, 200)
    assert {p.kernel for p in rc.plan_for(model, x, wiring).pathways} == {"dense"}
    plan = rc.plan_for(model, x, {**wiring, "synapses": {"memory": "100kB"}})
    assert {p.kernel for p in plan.pathways} == {"low_rank"} and plan.cost.synapse_bytes <= 105_000
    with pytest.raises(rc.WiringError, match="W041"):
        rc.plan_for(ImageNet(), torch.zeros(2, 3, 224, 224), {**wiring, "synapses": {"memory": "1MB"}})


# In a program


@pytest.mark.parametrize("kernel", ["auto", "channel", {"spatial": 2}, {"low_rank": 3}, "dense"])
@pytest.mark.parametrize("update", ["local_readout", "kolen_pollack", "lra", "fixed"])
def test_a_step_takes_exactly_the_flops_of_the_plan(kernel: object, update: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.Tanh(),
        nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    x, y = torch.randn(6, 2, 8, 8), torch.randint(0, 3, (6,))
    synapses = {"update": update, "max_entries": 10_000}
    wiring = {"version": 1, "pathways": [{"from": "output", "to": "all", "kernel": kernel}], "synapses": synapses}
    program = rc.compile(model, x, wiring)
    program.step(x, y)
    with FlopCounterMode(display=False) as counter:
        program.step(x, y)
    assert counter.get_total_flops() == program.plan.cost.flops


def test_a_chain_of_convolutions_takes_exactly_the_flops_of_the_plan() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(96, 3),
    )  # fmt: skip
    x, y = torch.randn(6, 2, 8, 8), torch.randint(0, 3, (6,))
    program = rc.compile(model, x, "lra_e")
    assert [p.kernel for p in program.plan.pathways] == ["spatial", "conv", "conv"]
    program.step(x, y)
    with FlopCounterMode(display=False) as counter:
        program.step(x, y)
    assert counter.get_total_flops() == program.plan.cost.flops


class Backward(TorchDispatchMode):
    """Notes for every convolution's backward pass whether the input gradient was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[bool] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.inputs.append(bool(args[-1][0]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("wiring", "granularity"), [("depth1", None), ("depth1_local", None), ("blocks", None)])
def test_output_fed_regions_never_compute_dx(wiring: str, granularity: str | None) -> None:
    """Layer by layer no convolution's input gradient is computed; by blocks only those inside a block are."""
    model, (x,) = ARCHITECTURES["resnet"]()
    program = rc.compile(model, x, wiring, granularity=granularity)
    with Backward() as seen:
        program.step(x, torch.tensor([0, 1, 2]))
    convolutions = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert len(seen.inputs) == convolutions
    # one dX in each of the four blocks, from its second convolution to its first
    assert sum(seen.inputs) == (4 if wiring == "blocks" else 0)


@pytest.mark.parametrize("phi", [nn.ReLU, nn.Tanh, nn.ELU, nn.Identity])
@pytest.mark.parametrize("kernel", [{"spatial": 2}, "channel", "dense"])
def test_large_maps_get_the_same_error_neurons_block_by_block(phi, kernel, monkeypatch) -> None:
    """Gradients, synapse updates and D(Θ) do not depend on how many samples are worked on at once."""
    results = []
    for block in (64, 100, 10**9):
        for module in (blocked, tasks):
            monkeypatch.setattr(module, "BLOCK", block)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), phi(), nn.Flatten(), nn.Linear(64, 3)).double()
        x, y = torch.randn(5, 2, 4, 4, dtype=torch.double), torch.tensor([0, 1, 2, 0, 1])
        wiring = {"version": 1, "pathways": [{"from": "output", "to": "all", "kernel": kernel}]}
        program = rc.compile(model, x, wiring)
        with torch.no_grad():
            for p in program.synapses.parameters():
                p.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
        program.step(x, y)
        results.append([*(p.grad for p in program.parameters()), torch.tensor(program.discrepancy.total)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_beta_counts_per_cell() -> None:
    """A displacement is divided by a cell's positions; β is multiplied by them, so that nothing is lost to rounding."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    x = torch.randn(4, 2, 8, 8)
    pathways = [{"from": "output", "to": "all", "kernel": {"spatial": 2}}]
    for normalize, beta in ((True, 0.16), (False, 0.01)):
        target = {"rule": "lra", "beta": 0.01, "normalize": normalize}
        plan = rc.plan_for(model, x, {"version": 1, "target": target, "pathways": pathways})
        assert plan.targets[1].beta == pytest.approx(beta)


def test_sequences_are_read_out_position_by_position() -> None:
    """A language model's read-outs see each token by itself: shapes, and no leak from one position to another."""
    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 11))
    tokens, y = torch.randint(0, 11, (4, 6)), torch.randint(0, 11, (4, 6))

    def loss_fn(logits, target):
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    program = rc.compile(model, tokens, "depth1", loss_fn=loss_fn)
    assert {p.kernel for p in program.plan.pathways} == {"channel"}
    assert {p.synapses for p in program.plan.pathways} == {8 * 11 + 11}
    optimizer = torch.optim.AdamW(program.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        program.zero_grad()
        losses.append(float(program.step(tokens, y)))
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


def test_pooling_never_has_more_cells_than_positions() -> None:
    assert pooled((32, 5), 8) == (8, 5) and pooled((197,), 8) == (8,) and pooled((), 8) == ()
    assert common((8, 4), (4, 8)) == ((4, 4), (4, 4)) and common((9,), (3, 3)) == ((1,), (1, 1))
