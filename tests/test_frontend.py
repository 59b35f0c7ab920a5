"""Tracing and partition: what becomes a region, and what tracing must not miss or change."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo import ZOO

import reclra_compile as rc
from reclra_compile.frontend.trace import trace
from reclra_compile.layers import Sign


def regions(name: str) -> dict[str, rc.Region]:
    model, inputs = ZOO[name]()
    return {r.name: r for r in rc.plan_for(model, inputs, "backprop").regions}


def test_a_region_is_a_layer_with_its_norm_and_activation() -> None:
    found = regions("conv_residual")
    assert list(found) == ["c1", "c2", "c3", "out"]
    c1, c3 = found["c1"], found["c3"]
    assert (c1.op, c1.phi, c1.shape, c1.tail) == ("Conv2d", "relu", (6, 8, 8), True)
    assert c1.parameters == ("c1.weight", "c1.bias", "b1.weight", "b1.bias")
    assert c3.inputs == ("o.c1", "z.c2")
    assert c1.source.endswith(".py:" + c1.source.rpartition(":")[2])


def test_parameters_after_an_activation_belong_to_the_next_region() -> None:
    found = regions("layer_norm_before")
    assert found["0"].parameters == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert found["4"].parameters == ("3.weight", "3.bias", "4.weight", "4.bias")


def test_a_module_used_again_is_another_region_with_the_same_parameters() -> None:
    found = regions("shared")
    assert list(found) == ["a", "b", "b@2", "b@3", "out"]
    assert {found[n].parameters for n in ("b", "b@2", "b@3")} == {("b.weight", "b.bias")}


def test_several_outputs_are_separated_from_their_parameters() -> None:
    stem = regions("chunked")["stem"]
    assert stem.outputs == ("o.stem", "o.stem#1")
    assert stem.shape == (16,)


@pytest.mark.parametrize(
    ("phi", "name"),
    [
        (F.relu, "relu"),
        (torch.tanh, "tanh"),
        (lambda h: h.sigmoid(), "sigmoid"),
        (lambda h: F.elu(h, alpha=0.5), "elu"),
        (torch.sign, "sign"),
        (lambda h: h.relu_(), "relu"),
        (lambda h: F.leaky_relu(h, 0.2, inplace=True), "leaky_relu"),
        (lambda h: F.rrelu(h, training=True), "identity"),
        (lambda h: F.softmax(h, 1), "identity"),
        (lambda h: h * 2, "identity"),
    ],
)
def test_activations_are_recognised_in_every_form(phi, name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(phi(self.a(x)))

    assert rc.plan_for(Net(), torch.randn(2, 3), "depth1").regions[0].phi == name


def test_an_activation_keeps_its_options_in_the_target() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.3), nn.Linear(4, 2)).double()
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randint(2, (6,))
    spec = {"version": 1, "target": {"beta": 0.5, "normalize": False}, "pathways": [{"from": "output", "to": "all"}],
            "synapses": {"init": {"normal": 1.0}}}  # fmt: skip
    program = rc.compile(model, x, spec)
    program.step(x, y)
    with torch.no_grad():
        h = model[0](x)
        z = F.leaky_relu(h, 0.3)
        e_out = torch.softmax(model[2](z), 1) - F.one_hot(y, 2)
        d = e_out @ program.synapses.get_submodule("2->0").E.T
        e = z - F.leaky_relu(h - 0.5 * d, 0.3)
    torch.testing.assert_close(model[0].weight.grad, e.T @ x / 6)


class Counting(nn.Module):
    """Counts its calls; `reads` makes the output depend on the count."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.fc, self.calls, self.reads = nn.Linear(3, 2), 0, reads

    def forward(self, x):
        self.calls += 1
        return self.fc(x) * (1 + self.calls) if self.reads else self.fc(x)


def test_python_state_that_the_output_depends_on_is_refused() -> None:
    with pytest.raises(rc.ModelError, match="M105"):
        trace(Counting(reads=True), torch.randn(2, 3))


def test_tracing_changes_no_python_state() -> None:
    model = Counting(reads=False)
    trace(model, torch.randn(2, 3))
    assert model.calls == 0


def test_inputs_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(rc.ModelError, match="M010"):
        rc.compile(nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 5))
    with pytest.raises(rc.ModelError, match="M103"):
        rc.compile(nn.Sequential(nn.Linear(3, 2)), (1.0,))
    with pytest.raises(rc.ModelError, match="M103"):
        rc.compile(nn.Sequential(nn.Linear(3, 2)), ())


def test_a_model_in_eval_mode_is_traced_for_training_and_left_in_eval_mode() -> None:
    class Drop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.b(F.dropout(torch.relu(self.a(x)), 0.5, self.training))

    model = Drop().eval()
    program = rc.compile(model, torch.randn(4, 8), "backprop")
    assert not model.training
    losses = {float(program.step(torch.ones(4, 8), torch.zeros(4, dtype=torch.long))) for _ in range(5)}
    assert len(losses) > 1, "functional dropout is active in a step"


def test_planning_allocates_no_weights() -> None:
    """A model on the meta device has shapes but no memory: it can be planned, costed and drawn."""
    with torch.device("meta"):
        layers = [m for _ in range(4) for m in (nn.Linear(8192, 8192), nn.ReLU())]
        model = nn.Sequential(*layers, nn.Linear(8192, 10))
        x = torch.empty(32, 8192)
    plan = rc.plan_for(model, x, "depth1")
    assert sum(r.parameter_count for r in plan.regions) > 268_000_000
    assert plan.cost.backprop_flops > plan.cost.flops
    assert rc.Plan.parse(str(plan)) == plan


def test_the_plan_of_a_deep_model_grows_linearly() -> None:
    def tasks(depth: int) -> int:
        layers = [m for _ in range(depth) for m in (nn.Linear(4, 4), nn.Tanh())]
        return len(rc.plan_for(nn.Sequential(*layers, nn.Linear(4, 2)), torch.randn(2, 4), "depth2").tasks)

    small, large = tasks(20), tasks(80)
    assert large - small < 4 * small


def test_a_compiled_model_can_still_be_copied_and_saved(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), Sign(), nn.Linear(4, 2))
    keys = list(model.state_dict())
    program = rc.compile(model, torch.randn(2, 4), "depth1")
    program.step(torch.randn(2, 4), torch.zeros(2, dtype=torch.long))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    twin = copy.deepcopy(model)
    twin.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert list(twin.state_dict()) == keys
