"""One rank of a small training job, for tests: `python rank_job.py OPTIONS`, a JSON object, under a launcher.

Each rank leaves its process id in the run's folder as it begins, and rank 0 the history as it ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from reclra_compile.compiler import plan_for
from reclra_compile.frontend.load_model import load_model
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.train.brought import brought_data
from reclra_compile.train.job import Job, Member, Result
from reclra_compile.train.loop import Epoch, Run

MODEL = """
import torch
from torch import nn

SIZES = (12, 24, 20, 16, 5)


def build_model():
    layers = []
    for k, (a, b) in enumerate(zip(SIZES, SIZES[1:])):
        # without biases before the norms: their gradients are nothing but rounding, which AdamW makes large
        normed = nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.Tanh(), nn.Dropout(0.2)
        layers += normed if b != 5 else [nn.Linear(a, b)]
    return nn.Sequential(*layers).double()  # so that other orders of sums show less than other sums


def data():
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(88, 12, generator=draw, dtype=torch.float64)
    y = (x[:, :5] + 0.3 * torch.randn(88, 5, generator=draw)).argmax(1)
    return {"train": (x[:64], y[:64]), "test": (x[64:], y[64:])}


example_inputs = torch.zeros(16, 12, dtype=torch.float64)
"""
SETTINGS = {"epochs": 3, "batch_size": 16, "lr": 0.02, "optimizer": "adamw", "clip": 1.0}


class Silent:
    """A watcher that waits after each step, and may end the job after one, or break weights by its first."""

    def __init__(self, wait: float = 0.0, stop: int = 0, poison: bool = False) -> None:
        self.wait, self.stop, self.poison = wait, stop, poison
        self.run: Run | None = None

    def start(self, member: Member, run: Run, history: list[Epoch]) -> None:
        """Keep the run."""
        self.run = run
        for kept in run.optimizer.state.values() if self.poison else ():
            kept["exp_avg"].fill_(float("inf"))

    def step(self, member: Member, run: Run) -> None:
        """Wait, or end."""
        time.sleep(self.wait)
        if run.taken == self.stop:
            raise KeyboardInterrupt

    def epoch(self, member: Member, run: Run, epoch: Epoch) -> None:
        """Nothing."""


def write_model(folder: Path) -> Path:
    """The model's file."""
    file = folder / "net.py"
    file.write_text(MODEL)
    return file


def plan_of(
    model: Path, devices: int, microbatches: int = 2, wiring: Any = "depth1", staleness: int | None = None
) -> Plan:
    """A plan of the model for so many devices."""
    loaded = load_model(str(model))
    return plan_for(loaded.model, loaded.inputs, wiring, machine=Machine(devices, microbatches, staleness))


def train(
    model: Path, plan: Plan, folder: Path, mesh: Any = None, resume: bool = False, every: int = 0, stop: int = 0,
    wait: float = 0.0, init: str = "build", poison: bool = False, **settings: Any,
) -> tuple[Result, Run]:  # fmt: skip
    """Train the model with a plan, alone or as a rank of a mesh."""
    data = brought_data(load_model(str(model)))
    assert data is not None
    job = Job(str(model), data, {**SETTINGS, **settings}, resume, mesh=mesh, init=init, checkpoint_every=every)
    watcher = Silent(wait, stop, poison)
    result = job.run(Member("run", None, plan, 0, folder), watcher)
    assert watcher.run is not None
    return result, watcher.run


def main() -> None:
    """Run one rank."""
    from reclra_compile.distributed.mesh import connect

    torch.set_num_threads(1)
    options = json.loads(sys.argv[1])
    folder = Path(options.pop("folder"))
    plan = Plan.parse(Path(options.pop("plan")).read_text())
    (folder / f"pid.{os.environ['RANK']}").write_text(str(os.getpid()))
    mesh = connect(len(plan.devices), timeout=30)
    resumes = bool(options.pop("resume", False)) or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    result, _ = train(Path(options.pop("model")), plan, folder, mesh, resumes, **options)
    if mesh.rank == 0:
        (folder / "history.json").write_text(json.dumps([e.as_json() for e in result.history]))
    mesh.barrier()
    mesh.close()


if __name__ == "__main__":
    main()
