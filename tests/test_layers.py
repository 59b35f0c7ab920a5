"""PerturbativeConv2d: the paper's pseudo-convolution (E7) as plain loops, its update, its noise, its errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import reclra_compile as rc
from reclra_compile.layers import PerturbativeConv2d


def layer(**options) -> PerturbativeConv2d:
    torch.manual_seed(0)
    return PerturbativeConv2d(2, 3, (4, 5), **options).double()


def test_e7_as_plain_loops() -> None:
    m = layer(masks=4, sigma=0.5)
    z = torch.randn(2, 2, 4, 5, dtype=torch.double)
    expected = torch.zeros(2, 3, 4, 5, dtype=torch.double)
    for n in range(2):
        for c in range(3):
            for i in range(4):
                for j in range(5):
                    total = m.bias[c].detach().clone()
                    for k in range(4):
                        perturbed = max(0.0, float(z[n, k % 2, i, j] + m.noise[0, k, i, j]))
                        total += m.weight[c, k, 0, 0].detach() * perturbed
                    expected[n, c, i, j] = total
    torch.testing.assert_close(m(z), expected)


def test_only_the_combinations_learn_by_e7() -> None:
    """Δw^{c,m} = Σ_{n,i,j} e^c ⊙ relu(z^m + n^m), which is what a program gives with e as its error neurons."""
    m = layer(bias=False)
    assert [n for n, _ in m.named_parameters()] == ["weight"]
    z = torch.randn(2, 2, 4, 5, dtype=torch.double)
    e = torch.randn(2, 3, 4, 5, dtype=torch.double)
    (dw,) = torch.autograd.grad(m(z), m.weight, e)
    expected = torch.einsum("ncij,nmij->cm", e, torch.relu(z + m.noise))
    torch.testing.assert_close(dw[:, :, 0, 0], expected)


def test_noise_is_drawn_from_its_own_seed() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = PerturbativeConv2d(2, 3, 4, seed=1)
    after_weights = torch.get_rng_state()
    torch.set_rng_state(before)
    b = PerturbativeConv2d(2, 3, 4, seed=2)
    assert torch.equal(torch.get_rng_state(), after_weights), "the noise takes nothing from the global state"
    assert torch.equal(a.weight, b.weight) and not torch.equal(a.noise, b.noise)
    assert torch.equal(a.noise, PerturbativeConv2d(2, 7, 4, seed=1).noise)
    assert float(PerturbativeConv2d(64, 1, 64, sigma=0.3).noise.std()) == pytest.approx(0.3, rel=0.01)


def test_the_noise_is_in_the_checkpoint() -> None:
    a, b = PerturbativeConv2d(2, 3, 4, seed=1), PerturbativeConv2d(2, 3, 4, seed=2)
    b.load_state_dict(a.state_dict())
    z = torch.randn(1, 2, 4, 4)
    assert torch.equal(a(z), b(z))


def test_stride_and_meta() -> None:
    assert PerturbativeConv2d(2, 3, 8, stride=2)(torch.zeros(1, 2, 8, 8)).shape == (1, 3, 4, 4)
    with torch.device("meta"):
        m = PerturbativeConv2d(2, 3, 8)
    assert m.noise.is_meta and m.weight.is_meta
    assert "masks=2, sigma=0.1, stride=1, bias=True, seed=0" in repr(m)


@pytest.mark.parametrize(
    "options", [{"masks": 3}, {"masks": 0}, {"sigma": -1.0}, {"stride": 0}, {"size": 0}, {"in_channels": 0}]
)
def test_sizes_that_do_not_fit_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=r"at least 1|multiple of"):
        PerturbativeConv2d(**{"in_channels": 2, "out_channels": 3, "size": 4, **options})


@pytest.mark.parametrize("wiring", ["depth1", "blocks", "feedback_alignment", "kolen_pollack", "sign_symmetry"])
def test_wirings_run_on_perturbative_layers(wiring: str) -> None:
    model = nn.Sequential(
        PerturbativeConv2d(2, 4, 6), nn.BatchNorm2d(4), nn.ReLU(), PerturbativeConv2d(4, 4, 6), nn.BatchNorm2d(4),
        nn.ReLU(), nn.Flatten(), nn.Linear(144, 3),
    )  # fmt: skip
    x, y = torch.randn(4, 2, 6, 6), torch.randint(0, 3, (4,))
    try:
        program = rc.compile(model, x, wiring)
    except rc.WiringError as error:
        assert {f.code for f in error.faults} == {"W033"}
        return
    assert [r.op for r in program.plan.regions][:1] == ["PerturbativeConv2d"]
    program.step(x, y)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
