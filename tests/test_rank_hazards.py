"""What could go wrong on ranks, and does not: each is a small case on two of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from ranks import on_ranks
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.distributed.mesh import Mesh, connect
from reclra_compile.errors import ReclraError


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    return nn.Sequential(*layers).double()


def batch(count: int = 8) -> tuple[Tensor, Tensor]:
    torch.manual_seed(5)
    return torch.randn(count, 6, dtype=torch.float64), torch.arange(count) % 3


class Shared(nn.Module):
    """One batch norm without parameters, used by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.norm(self.b(torch.relu(self.norm(self.a(x)))))))


def of_two_stages() -> dict[str, object]:
    """Two stages: each entry is what a test below asks for."""
    mesh = connect(2, timeout=60)
    x, y = batch()
    found: dict[str, object] = {}
    program = rc.compile(mlp(), x, "kolen_pollack", devices=2, microbatches=2, mesh=mesh)
    program.step(x, y)
    program.model.eval()
    output = program.predict(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = program.predict(x)
    again = program.predict(x)
    found["outputs"] = -1 if output is None else int(torch.allclose(output, again) and output.shape == low.shape)
    apart = {"0": 0, "2": 1, "4": 1}
    found["inverse"] = code_of(
        lambda: rc.compile(mlp(), x, "target_propagation", devices=2, placement=apart, mesh=mesh)
    )
    pins = {"a": 0, "b": 1, "c": 1}
    found["statistics"] = code_of(
        lambda: rc.compile(Shared().double(), x, "depth1", devices=2, placement=pins, mesh=mesh)
    )
    found["inputs"] = code_of(lambda: program.predict(x, y))
    loss_fn = nn.CrossEntropyLoss(ignore_index=-1)
    torch.manual_seed(0)
    tokens = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3), Turned()).double()
    inputs, labels = torch.randn(4, 5, 6, dtype=torch.float64), torch.randint(3, (4, 5))
    labels[2:] = -1  # of the second microbatch nothing counts
    program = rc.compile(tokens, inputs, "backprop", loss_fn=loss_fn, devices=2, microbatches=2, mesh=mesh)
    loss = mesh.total([float(program.step(inputs, labels))])[0]
    found["ignored"] = loss
    return found


class Turned(nn.Module):
    """(N, T, C) → (N, C, T), as cross entropy wants classes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def code_of(call: object) -> str:
    try:
        call()  # type: ignore[operator]
    except ReclraError as error:
        return error.faults[0].code
    return ""


def of_two_replicas() -> dict[str, object]:
    """Two replicas of one stage."""
    mesh = connect(1, timeout=60)
    x, y = batch()
    found: dict[str, object] = {}
    model = mlp()
    model[0].weight.requires_grad_(False)
    program = rc.compile(model, x, "backprop", mesh=mesh)
    program.step(x, y)
    model[0].weight.requires_grad_(True)
    program.zero_grad()
    program.step(x, y)
    program.step(x, y)  # adds up, as gradients do
    found["thawed"] = model[0].weight.grad
    program = rc.compile(mlp(), x, "backprop", loss_fn=rooted, reduction="mean", mesh=mesh)
    found["rooted"] = code_of(lambda: program.step(x, y))
    with_dropout = nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 3)).double()
    program = rc.compile(with_dropout, x, "backprop", mesh=mesh)
    torch.manual_seed(3)
    program.predict(x)
    found["draw"] = int(torch.randint(2**40, ()))
    found["kept"] = kept_after_a_small_batch(mesh)
    mesh.close()
    found["group"] = int(torch.distributed.is_initialized())  # others made it
    return found


def rooted(output: Tensor, y: Tensor) -> Tensor:
    """A loss that cannot be cut."""
    return F.cross_entropy(output, y, reduction="none").square().mean().sqrt()


def kept_after_a_small_batch(mesh: Mesh) -> int:
    """Whether gradients survive a step that is refused."""
    x, y = batch()
    program = rc.compile(mlp(), x, "backprop", mesh=mesh)
    program.step(x, y)
    assert code_of(lambda: program.step(x[:1], y[:1])) == "R114"
    return int(all(p.grad is not None for p in program.parameters()))


def test_two_stages() -> None:
    first, last = on_ranks(2, "test_rank_hazards:of_two_stages")
    assert sorted([first["outputs"], last["outputs"]]) == [-1, 1]  # only one rank has them
    for rank in (first, last):
        assert (rank["inverse"], rank["statistics"], rank["inputs"]) == ("R115", "R116", "T003")
    assert first["ignored"] == last["ignored"] > 0


def test_two_replicas() -> None:
    one, two = on_ranks(2, "test_rank_hazards:of_two_replicas")
    x, y = batch()
    model = mlp()
    F.cross_entropy(model(x), y).backward()
    expected = 2 * model[0].weight.grad
    for rank in (one, two):
        assert torch.allclose(rank["thawed"], expected, atol=1e-12)
        assert (rank["rooted"], rank["kept"], rank["group"]) == ("T029", 1, 1)
    assert one["draw"] == two["draw"]
