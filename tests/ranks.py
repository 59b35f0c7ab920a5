"""Run a function on several ranks, each a process, and collect what it returns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
TIMEOUT = 600


def on_ranks(count: int, job: str, *args: str) -> list[Any]:
    """What `job` ("module:function" of the tests) returned on each of `count` ranks: tensors, numbers, text."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__)), job, folder, str(count)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "PYTHONWARNINGS": "error"}
        ranks = []
        try:
            for rank in range(count):
                ranks.append(
                    subprocess.Popen([*command, str(rank), *args], env=environment, text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                )  # fmt: skip
            said = [rank.communicate(timeout=TIMEOUT)[0] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        failed = [f"rank {k}:\n{text}" for k, text in enumerate(said) if ranks[k].returncode]
        assert not failed, "\n".join(failed)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _main() -> None:
    import importlib

    import torch.distributed as dist

    job, folder, count, rank, *args = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=int(rank), world_size=int(count))
    module, name = job.split(":")
    found = getattr(importlib.import_module(module), name)(*args)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    _main()
