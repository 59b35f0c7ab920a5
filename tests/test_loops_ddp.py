"""DistributedDataParallel around an attached model, on two processes, ends with what one does on whole batches."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from loop_ranks import STEPS, VARIANTS
from loops import LOOPS, adamw, assert_equal, compiled, double, loop, weights
from ranks import on_ranks

import reclra_compile as rc


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, dict[str, Any]]]:
    return on_ranks(2, "loop_ranks:train")


def one_process(wiring: str = "depth1", parts: int = 1, **_: Any) -> rc.Program:
    """The loop by `program.step`, on whole batches."""
    with double():
        program = compiled(wiring)
        optimizer = adamw(program)
        for _ in range(2):
            for k, (x, y) in enumerate(loop("digits").batches(limit=STEPS), 1):
                program.step(x, y)
                if k % parts == 0:
                    for p in program.parameters():
                        p.grad /= parts
                    optimizer.step()
                    optimizer.zero_grad()
    return program


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_are_one_process_on_the_whole_batch(ranks: list[dict[str, Any]], variant: str) -> None:
    first, second = (rank[variant] for rank in ranks)
    assert_equal(first["weights"], second["weights"], 0.0)
    assert_equal(first["synapses"], second["synapses"], 0.0)
    program = one_process(**VARIANTS[variant])
    assert_equal(first["weights"], weights(program.model))
    assert_equal(first["synapses"], {k: v.detach() for k, v in program.synapses.named_parameters()})


@pytest.mark.parametrize("variant", VARIANTS)
def test_communication_hooks_see_every_gradient_once_for_each_optimizer_step(ranks: list[Any], variant: str) -> None:
    steps = 2 * STEPS // VARIANTS[variant].get("parts", 1)
    assert [rank[variant]["reduced"] for rank in ranks] == [steps, steps]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "accelerate_loop"])
def test_under_torchrun(name: str) -> None:
    if name == "accelerate_loop":
        pytest.importorskip("accelerate", reason="needs the extra accelerate")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, str(LOOPS / f"{name}.py")], env=environment, capture_output=True, text=True,
                          timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test error") == 1 and float(done.stdout.split()[2]) < 20
