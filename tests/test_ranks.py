"""Transparency over processes: ranks of a mesh end with the weights of one device."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, GPT
from lanes import made
from ranks import on_ranks
from torch import Tensor

import reclra_compile as rc
from reclra_compile.distributed.mesh import connect

OWN_LOOP = Path(__file__).parent.parent / "examples" / "own_loop.py"
MODELS = ("mlp", "resnet", "gpt")
WIRINGS = ("backprop", "depth1", "depth2", "blocks")
MICROBATCHES = (1, 2, 8)
SAMPLES, STEPS = 9, 3  #: 9 samples make 8 microbatches of unequal sizes


def batch_of(name: str, dtype: torch.dtype) -> tuple[Any, tuple[Tensor, ...], Tensor]:
    """A model, a larger batch than its example's, and what its output is compared with."""
    module, inputs, y = made(name)
    if name == "gpt":  # tied embeddings are one unit: three blocks are there for the other devices
        module = GPT(depth=3)
    torch.manual_seed(3)
    several = tuple(_like(x, dtype) for x in inputs)
    return module.to(dtype), several, _like(y, dtype)


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    shape = (SAMPLES, *x.shape[1:])
    if x.is_floating_point():
        return torch.randn(shape, dtype=torch.float64).to(dtype)
    return torch.randint(int(x.max()) + 1, shape)


def trained(
    name: str, wiring: str, microbatches: int, dtype: torch.dtype, devices: int = 1, mesh: Any = None
) -> dict[str, Tensor]:
    """Weights, synapses, loss and discrepancy after three steps of descent with momentum.

    Adam divides gradients by their size, and so would turn the rounding of those that are zero into steps.
    """
    module, inputs, y = batch_of(name, dtype)
    loss_fn = F.mse_loss if name in ARCHITECTURES else F.cross_entropy
    program = rc.compile(module, inputs, wiring, loss_fn=loss_fn, devices=devices, microbatches=microbatches, mesh=mesh)
    groups = [{"params": list(program.parameters())}]  # a rank may have none
    optimizer = torch.optim.SGD(groups, lr=1e-2, momentum=0.9)
    torch.manual_seed(1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = float(program.step(*inputs, y))
        optimizer.step()
    known = program.peers.total([loss, program.discrepancy.total])
    held = getattr(program, "held", None)
    found = {n: p.detach() for n, p in program.model.named_parameters() if held is None or n in held}
    found |= {f"synapses.{n}": p.detach() for n, p in program.synapses.named_parameters()}
    return {**found, "loss": torch.tensor(known[0]), "discrepancy": torch.tensor(known[1])}


Case = tuple[str, str, int, str]
#: everything, for `make check-all`; a part of it that has every model, wiring and number of microbatches otherwise
ALL: tuple[Case, ...] = tuple(
    (name, wiring, m, dtype)
    for name, wiring, m in itertools.product(MODELS, WIRINGS, MICROBATCHES)
    for dtype in ("float64", "float32")
)
SOME: dict[tuple[int, int], tuple[Case, ...]] = {
    (2, 1): (
        ("mlp", "backprop", 2, "float64"), ("mlp", "depth1", 8, "float32"), ("resnet", "depth1", 2, "float64"),
        ("gpt", "depth2", 2, "float64"),
    ),
    (2, 2): (("mlp", "depth2", 2, "float64"), ("resnet", "blocks", 1, "float64")),
}  # fmt: skip


def cases_of(kind: str, stages: int, replicas: int) -> tuple[Case, ...]:
    cases = ALL if kind == "all" else SOME[stages, replicas]
    return tuple(c for c in cases if c[2] * replicas <= SAMPLES)


def held_after(kind: str, stages: str) -> dict[str, dict[str, Tensor]]:
    """What a rank holds at the end of each case."""
    mesh = connect(int(stages), timeout=60)
    return {
        f"{name} {wiring} {m} {dtype}": trained(name, wiring, m, getattr(torch, dtype), int(stages), mesh)
        for name, wiring, m, dtype in cases_of(kind, mesh.stages, mesh.replicas)
    }


@functools.cache
def alone(name: str, wiring: str, m: int, dtype: str, devices: int) -> dict[str, Tensor]:
    return trained(name, wiring, m, getattr(torch, dtype), devices)


MESHES = [(2, 1), (4, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize(("stages", "replicas"), SOME)
def test_ranks_end_with_the_weights_of_one_device(stages: int, replicas: int) -> None:
    _compare("some", stages, replicas)


@pytest.mark.slow
@pytest.mark.parametrize(("stages", "replicas"), MESHES)
def test_ranks_end_with_the_weights_of_one_device_in_all_cases(stages: int, replicas: int) -> None:
    _compare("all", stages, replicas)


def _compare(kind: str, stages: int, replicas: int) -> None:
    ranks = on_ranks(stages * replicas, "test_ranks:held_after", kind, str(stages))
    wrong = []
    for name, wiring, m, dtype in cases_of(kind, stages, replicas):
        case = f"{name} {wiring} {m} {dtype}"
        # one device that runs a batch as a whole draws dropout from torch's own generator: two do not
        expected = alone(name, wiring, m * replicas, dtype, min(stages, 2) if m * replicas == 1 else 1)
        close = 1e-12 if dtype == "float64" else 1e-6
        for r in range(replicas):
            held: dict[str, Tensor] = {}
            for rank in ranks[r * stages : (r + 1) * stages]:
                assert not (held.keys() & rank[case].keys()) - {"loss", "discrepancy"}
                held |= rank[case]
            assert held.keys() == expected.keys(), case
            wrong += [
                f"{case}, replica {r}, {n}: {float((held[n] - expected[n]).abs().max()):.1e}"
                for n in expected
                if not torch.allclose(held[n], expected[n], rtol=close, atol=close)
            ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_the_example_of_a_loop_of_ones_own_learns() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(OWN_LOOP)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=one_thread)
    assert done.returncode == 0, done.stderr
    errors = [float(line.split()[-2]) for line in done.stdout.splitlines()]
    assert len(errors) == 5
    assert errors[-1] < 25 < errors[0]
