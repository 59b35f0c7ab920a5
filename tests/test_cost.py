"""What tasks cost: bytes against counts by hand, lines and rates from samples, steps timed with a clock of our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import reclra_compile as rc
from reclra_compile.arrange import arrange
from reclra_compile.compiler import plan_for
from reclra_compile.cost.fit import Line, Sample, fitted, line_through
from reclra_compile.cost.measured import work_of
from reclra_compile.errors import CostError, Fault, TrainingError
from reclra_compile.frontend.traffic import Traffic, tensor_bytes
from reclra_compile.ir import Device, Plan, Region, Task
from reclra_compile.machine import Machine
from reclra_compile.placement.times import task_us
from reclra_compile.profile.bench import Bench, bench, on_one_device, undisturbed
from reclra_compile.profile.stand_in import rows, target_for
from reclra_compile.runtime.tasks import waits
from reclra_compile.runtime.timing import MOST, Timing
from reclra_compile.spec.load import load_wiring

B = 6


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 3))


def regions(model: nn.Module, x: torch.Tensor, wiring: str = "depth1") -> dict[str, Region]:
    return {r.name: r for r in plan_for(model, x, wiring).regions}


class Ticks:
    """A clock that shows how often it was read: each reading is a second later."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return float(self.reads)


# ------------------------------------------------------------------ bytes


def test_bytes_of_linear_layers_with_their_activations() -> None:
    found = regions(mlp(), torch.rand(B, 5))
    n, m = 7, 4
    second = found["2"]
    product, relu = 4 * (m + B * n + n * m + B * m), 4 * 2 * B * m
    assert second.forward_bytes == product + relu
    assert second.weight_bytes == 4 * (B * m + B * n + n * m) + 4 * (B * m + m)  # eᵀx, and the sum of e
    assert second.input_bytes == 4 * (B * m + n * m + B * n)
    assert found["0"].input_bytes == 0  # the model's inputs need no gradient
    assert (second.z_bytes, second.output_bytes, second.parameter_bytes) == (4 * B * m, (4 * B * m,), 4 * (n * m + m))


def test_bytes_of_a_convolution_in_float64_with_a_tail() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 3)
    ).double()
    region = regions(model, torch.rand(B, 2, 8, 8, dtype=torch.float64))["0"]
    x, w, h, pooled = B * 2 * 64, 3 * 2 * 9, B * 3 * 64, B * 3 * 16
    assert region.z_bytes == 8 * h
    assert region.output_bytes == (8 * pooled,)
    assert region.forward_bytes == 8 * (x + w + 3 + h) + 8 * (h + h) + 8 * (h + pooled)  # convolution, ReLU, pooling
    assert region.weight_bytes == 8 * (h + x + w) + 8 * (w + 3)  # convolution_backward: e, x, W in; dW, db out
    assert region.parameter_bytes == 8 * (w + 3)


def test_bytes_of_a_normalisation() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 3))
    region = regions(model, torch.rand(B, 5))["0"]
    product = 4 * (7 + B * 5 + 35 + B * 7)
    norm = 4 * (B * 7 + 7 + 7) + 4 * (B * 7 + B + B)  # h, scale, shift in; out, mean, 1/σ out
    assert region.forward_bytes == product + norm + 4 * 2 * B * 7


def test_looking_up_moves_rows_and_not_the_table() -> None:
    table, ids = torch.rand(1000, 8, device="meta"), torch.zeros(B, dtype=torch.long, device="meta")
    with Traffic() as traffic:
        F.embedding(ids, table)
    assert traffic.bytes == 8 * B + 2 * 4 * 8 * B


def test_views_and_allocations_move_nothing_and_flops_are_torchs() -> None:
    x = torch.rand(4, 6, device="meta")
    with Traffic() as traffic:
        y = torch.empty_like(x).view(6, 4).t()
        assert traffic.bytes == 0
        (x @ y.t()).relu_()
    assert traffic.flops == 2 * 4 * 6 * 4
    assert traffic.bytes == 4 * (24 + 24 + 16) + 4 * 2 * 16


def test_operations_made_of_others_are_counted_by_their_parts() -> None:
    x, w = torch.rand(4, 6, device="meta"), torch.rand(3, 6, device="meta")
    with torch.inference_mode(), Traffic() as traffic:
        F.linear(x, w)
    assert traffic.flops == 2 * 4 * 6 * 3


def test_an_expanded_tensor_counts_as_what_is_stored() -> None:
    assert tensor_bytes(torch.zeros(1).expand(100, 100)) == 4
    assert tensor_bytes(torch.zeros(3, 4)) == 48


class Attention(nn.Module):
    """One layer of attention whose four heads hear a function of torch, and a read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.unflatten(2, (4, 8)).transpose(1, 2) for t in self.qkv(x).chunk(3, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


class OfTorch(nn.Module):
    """The same with torch's module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(32, 4, batch_first=True)
        self.out = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.inner(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("model", [Attention, OfTorch])
def test_attention_is_one_operation_that_stores_no_pairs_of_positions(model: Callable[[], nn.Module]) -> None:
    """Twice the positions are twice the bytes, and four times the FLOPs of the products of pairs."""
    short, long = (list(regions(model(), torch.rand(2, t, 32)).values()) for t in (256, 512))
    for a, b in zip(short, long, strict=True):
        assert b.saved_bytes <= 2 * a.saved_bytes and b.forward_bytes <= 2 * a.forward_bytes
        assert b.input_bytes <= 2 * a.input_bytes and b.weight_bytes <= 2 * a.weight_bytes
    pairs, linear = 2 * 2 * 2 * 256 * 256 * 32, sum(2 * 2 * 256 * 32 * n for n in ((100,), (132,))[model is OfTorch])
    assert sum(r.forward_flops for r in short) == pairs + linear
    assert sum(r.forward_flops for r in long) == 4 * pairs + 2 * linear


def test_attention_keeps_what_torch_keeps_where_it_runs() -> None:
    model, x, kept = Attention(), torch.rand(2, 256, 32), dict[int, torch.Tensor]()
    noted = lambda t: kept.setdefault(t.untyped_storage()._cdata, t)  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(noted, lambda t: t):
        model(x)
    real = sum(t.untyped_storage().nbytes() for t in kept.values())
    found = regions(model, x)
    given = x.nbytes + found["qkv"].z_bytes + model.out.weight.nbytes  # inputs and parameters of the two regions
    assert found["out"].saved_bytes == pytest.approx(real - given, rel=0.01)
    assert F.scaled_dot_product_attention is torch._C._nn.scaled_dot_product_attention


def test_shared_parameters_count_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h: torch.Tensor = self.out(torch.relu(self.inner(torch.relu(self.inner(x)))))
            return h

    plan = plan_for(Twice(), torch.rand(B, 5), "depth1")
    assert plan.cost.parameter_bytes == 4 * (30 + 18)


def test_cost_says_what_a_step_moves_and_sends() -> None:
    plan = plan_for(mlp(), torch.rand(B, 5), "depth1")
    assert plan.cost.traffic_bytes == sum(t.bytes for t in plan.tasks) > 0
    assert plan.cost.sent_bytes == 0
    two = arrange(plan, (Device("a"), Device("b")), Machine())
    posted = [t.bytes for t in two.tasks if t.kind == "P"]
    assert two.cost.sent_bytes == sum(posted) > 0
    assert two.cost.traffic_bytes == plan.cost.traffic_bytes


# ------------------------------------------------------------------ lines and rates


def test_a_line_is_found_again() -> None:
    found = line_through({n: 30 + 0.5 * n for n in (64, 32, 16)})
    assert (found.fixed_us, found.sample_us) == pytest.approx((30, 0.5))


def test_a_line_goes_through_the_largest_and_is_never_negative() -> None:
    assert line_through({64: 100.0, 32: 60.0, 16: 30.0}).us(64) == pytest.approx(100)
    assert line_through({64: 100.0, 32: 20.0}) == Line(0.0, 100 / 64)
    assert line_through({64: 10.0, 32: 20.0}) == Line(10.0, 0.0)


def test_one_batch_size_keeps_the_start_of_a_task_apart() -> None:
    assert line_through({10: 50.0}, 20.0) == Line(20.0, 3.0)
    assert line_through({10: 15.0}, 20.0) == Line(15.0, 0.0)
    assert line_through({}) == Line(0.0, 0.0)


TRUE = Device("cpu", flops_per_s=4e10, bytes_per_s=8e9, task_us=25.0)


def samples() -> list[Sample]:
    tasks = [(f, b) for f in (0, 10**5, 10**7, 10**9) for b in (10**3, 10**6, 10**8)]
    return [Sample(f, b, task_us(Task("F", "r", (), flops=f, bytes=b), TRUE)) for f, b in tasks]


def test_rates_of_a_machine_are_found_again() -> None:
    found = fitted(samples(), Device("cpu", flops_per_s=1e11, bytes_per_s=2e10, task_us=10.0, link_latency_us=7.0))
    assert found.flops_per_s == pytest.approx(TRUE.flops_per_s, rel=0.02)
    assert found.bytes_per_s == pytest.approx(TRUE.bytes_per_s, rel=0.02)
    assert found.task_us == pytest.approx(TRUE.task_us, rel=0.1)
    assert found.link_latency_us == 7.0


def test_fitted_rates_add_up_to_the_samples_and_stay_near_the_guess_where_nothing_is_known() -> None:
    guess = Device("cpu", flops_per_s=1e11, bytes_per_s=3e9, task_us=10.0)
    bound = [Sample(f, 8, 1e6 * f / 5e10 + 20 + k) for k, f in enumerate((10**6, 10**7, 10**8))]
    found = fitted(bound, guess)
    again = [task_us(Task("F", "r", (), flops=int(s.flops), bytes=8), found) for s in bound]
    assert sum(again) == pytest.approx(sum(s.us for s in bound))
    assert found.bytes_per_s == pytest.approx(guess.bytes_per_s, rel=0.1)
    assert fitted([], guess) == guess


# ------------------------------------------------------------------ timing


def timing(wiring: str = "depth1", now: Callable[[], float] | None = None) -> Timing:
    torch.manual_seed(0)
    x, y = torch.rand(B, 5), torch.randint(3, (B,))
    return Timing(rc.compile(mlp(), x, wiring), (x, y), now or Ticks())


def real(plan: Plan) -> list[Task]:
    return [t for t in plan.tasks if t.kind not in "XPR"]


def test_tasks_add_up_to_the_plain_step() -> None:
    timed = timing()
    timed.warm_up(2)
    assert timed.repeats == 1  # a step of one second is not short
    for _ in range(3):
        timed.round()
    assert len(timed.steps) == 3
    assert timed.step_us() == 1e6  # one second between two readings
    found = timed.task_us()
    assert set(found) == {t.id for t in real(timed.program.plan)}
    assert sum(found.values()) == pytest.approx(1e6)


def test_updates_that_wait_share_the_end_of_the_step_by_their_flops() -> None:
    timed = timing()
    spent = dict(timed._watched())
    tasks = timed.program.plan.tasks
    waiting = {t.id: t.flops for t in tasks if waits(t, timed.program._linked)}
    assert set(waiting) == {"U 0", "U 2", "U 4"}
    total = sum(waiting.values())
    frees = [k for k, t in enumerate(tasks) if t.kind == "X"]
    for name, flops in waiting.items():  # one second of its own, one for each value freed after it, and its share
        k = next(k for k, t in enumerate(tasks) if t.id == name)
        after = next((i for i in range(k + 1, len(tasks)) if i not in frees), len(tasks)) - k - 1
        assert spent[name] == pytest.approx(1e6 * (1 + after + flops / total))
    assert sum(spent.values()) == pytest.approx(1e6 * (len(tasks) + 1))  # one reading before, one after each, the end


def test_without_updates_that_wait_the_end_belongs_to_the_last_task() -> None:
    timed = timing("backprop")
    assert not timed.waiting
    assert sum(timed._watched().values()) == pytest.approx(1e6 * (len(timed.program.plan.tasks) + 1))


def test_short_steps_are_repeated() -> None:
    now = [0.0]

    def quick() -> float:
        now[0] += 1e-6
        return now[0]

    timed = timing(now=quick)
    timed.warm_up(1)
    timed.round()
    assert timed.repeats == len(timed.steps) == MOST
    timed.clear()
    assert not timed.steps and not timed.tasks


def test_profile_takes_whole_halved_and_quartered_batches_apart_and_together() -> None:
    x, y = torch.rand(8, 5), torch.randint(3, (8,))
    made = bench(mlp(), x, "depth1", (x, y), loss_fn=F.cross_entropy, now=Ticks())
    assert list(made.alone) == [8, 4, 2]
    assert list(made.apart) == [4, 2]  # batches of 8 and 4, cut in two
    assert [len(t.batch[0]) for t in made.apart.values()] == [8, 4]
    made.warm_up()
    for _ in range(3):
        made.round()
    assert {len(t.steps) for t in (*made.alone.values(), *made.apart.values())} == {3}
    found = made.measured(torch.device("cpu"))
    assert (found.samples, found.batch) == ((8, 4, 2), 8)
    assert found.step_us == {8: 1e6, 4: 1e6, 2: 1e6}
    assert set(found.tasks) == {t.id for t in real(made.plan)}
    assert sum(t.alone.us(8) for t in found.tasks.values()) == pytest.approx(1e6)
    assert sum(t.apart.us(4) for t in found.tasks.values()) == pytest.approx(0.5e6)  # a microbatch, of two


def test_batch_of_one_sample_is_timed_whole() -> None:
    x, y = torch.rand(1, 5), torch.randint(3, (1,))
    made = bench(mlp(), x, "depth1", (x, y), loss_fn=F.cross_entropy, now=Ticks())
    assert (list(made.alone), list(made.apart)) == ([1], [])
    made.warm_up()
    made.round()
    found = made.measured(torch.device("cpu"))
    assert all(t.apart == t.alone for t in found.tasks.values())


def test_sizes_that_a_model_does_not_take_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.rand(4, 5), torch.randint(3, (4,))
    made = bench(mlp(), x, "depth1", (x, y), loss_fn=F.cross_entropy, now=Ticks())
    warm_up = Timing.warm_up

    def fixed(self: Timing, rounds: int) -> None:
        if len(self.batch[0]) != 4 or self.program.plan.schedule.microbatches > 1:
            raise TrainingError(Fault("T007", "the batch size is fixed"))
        warm_up(self, rounds)

    monkeypatch.setattr(Timing, "warm_up", fixed)
    made.warm_up()
    assert (list(made.alone), list(made.apart)) == ([4], [])
    monkeypatch.setattr(Timing, "warm_up", lambda self, rounds: fixed(replace(self, batch=(x[:1], y[:1])), rounds))
    with pytest.raises(TrainingError):
        Bench(made.program, None, (x, y), Ticks()).warm_up()


def test_a_profile_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 3)).eval()
    x, y = torch.rand(B, 5), torch.randint(3, (B,))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    made = bench(model, x, "depth1", (x, y), loss_fn=F.cross_entropy, now=Ticks())
    made.warm_up()
    made.round()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    with undisturbed(model):
        assert model.training


def test_a_wiring_for_devices_is_profiled_on_one() -> None:
    said = load_wiring({"version": 1, "pathways": [{"from": "output", "to": "all", "kernel": "dense"}],
                        "schedule": {"devices": 2, "microbatches": 4}, "placement": {"0": 1}})  # fmt: skip
    x, y = torch.rand(B, 5), torch.randint(3, (B,))
    made = bench(mlp(), x, said.wiring, (x, y), loss_fn=F.cross_entropy, now=Ticks())
    assert (len(made.plan.devices), made.plan.schedule.microbatches) == (1, 1)
    assert on_one_device("depth1") == load_wiring("depth1")


def test_a_wiring_that_is_chosen_for_devices_is_profiled_on_one() -> None:
    x, y = torch.rand(B, 5), torch.randint(3, (B,))
    request = {"version": 1, "auto": {"devices": 2, "microbatches": 4, "depth": 2}}
    made = bench(mlp(), x, request, (x, y), loss_fn=F.cross_entropy, now=Ticks())
    assert (len(made.plan.devices), made.plan.schedule.microbatches) == (1, 1)
    assert work_of(made.plan) == work_of(plan_for(mlp(), x, request))


def test_what_stands_beside_a_wiring_file_is_found(tmp_path: Path) -> None:
    """A profile changes what the file says of devices, not where the file is."""
    (tmp_path / "inner.yaml").write_text("version: 1\npathways: [{from: output, to: all}]\n", encoding="utf-8")
    file = tmp_path / "fixed.yaml"
    file.write_text("version: 1\nregions: {granularity: {groups: 2}}\ninside: inner.yaml\nschedule: {devices: 2}\n"
                    "pathways: [{from: output, to: all, update: local_loss}]\n", encoding="utf-8")  # fmt: skip
    x, y = torch.rand(B, 5), torch.randint(3, (B,))
    model = nn.Sequential(*(nn.Sequential(nn.Linear(5, 5), nn.ReLU()) for _ in range(4)), nn.Linear(5, 3))
    made = bench(model, x, str(file), (x, y), loss_fn=F.cross_entropy, now=Ticks())
    assert len(made.plan.regions) == len(plan_for(model, x, str(file)).regions) and len(made.plan.devices) == 1


# ------------------------------------------------------------------ batches to time


def test_targets_are_classes_per_sample_or_position_or_values() -> None:
    assert target_for(torch.rand(4, 3), F.cross_entropy).shape == (4,)
    per_pixel = target_for(torch.rand(4, 3, 5, 5), F.cross_entropy)
    assert per_pixel.shape == (4, 5, 5) and per_pixel.max() < 3

    def per_token(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    tokens = target_for(torch.rand(4, 6, 9), per_token)
    assert tokens.shape == (4, 6) and tokens.max() < 9
    assert target_for(torch.rand(4, 1), F.mse_loss).shape == (4, 1)


def test_a_loss_that_takes_no_target_is_named() -> None:
    def needs_a_dict(output: torch.Tensor, target: dict[str, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(output, target["y"])

    with pytest.raises(CostError, match=r"C006.*\(4, 3\)"):
        target_for(torch.rand(4, 3), needs_a_dict)  # type: ignore[arg-type]


def test_rows_begin_again_where_there_are_fewer() -> None:
    assert rows(torch.arange(3), 5).tolist() == [0, 1, 2, 0, 1]
    assert rows(torch.arange(3), 2).tolist() == [0, 1]
