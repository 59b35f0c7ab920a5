"""Test error on CIFAR-10 at equal budget: backprop beside rec-LRA between layers, blocks and groups of blocks.

    python benchmarks/accuracy_cifar.py --data-dir FOLDER                        # the table of docs/results.md
    python benchmarks/accuracy_cifar.py --only resnet/blocks --lr 0.001 --valid 5000 --seeds 1

Each line is one run: a model and a wiring, a seed, the error on held-out images (--valid) and on the test
images after the last epoch. Runs are written to --out as they end, and are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

import reclra_compile as rc
from reclra_compile.data.sets import load
from reclra_compile.frontend.load_model import load_model
from reclra_compile.train.loop import Run, with_flags

EXAMPLES = Path(__file__).parent.parent / "examples"
CASES: dict[str, tuple[str, str, str, str | None]] = {
    "cnn/backprop": ("cnn.py", "cifar10", "backprop", None),
    "cnn/depth1_local": ("cnn.py", "cifar10", "depth1_local", None),
    "cnn/depth1": ("cnn.py", "cifar10", "depth1", None),
    "resnet/backprop": ("resnet_cifar.py", "conv16", "backprop", None),
    "resnet/blocks": ("resnet_cifar.py", "conv16", "blocks", None),
    "resnet/groups3": ("resnet_cifar.py", "conv16", "groups", "groups=3"),
    "resnet/groups2": ("resnet_cifar.py", "conv16", "groups", "groups=2"),
}


def one(case: str, seed: int, options: argparse.Namespace) -> dict[str, object]:
    """Train one model with one wiring and return its errors in percent."""
    file, builder, wiring, granularity = CASES[case]
    data = load("cifar10", options.data_dir, validation=options.valid)
    count = options.images
    train = data.as_tensors("train", (3, 32, 32))
    parts = {part: data.as_tensors(part, (3, 32, 32)) for part in ("valid", "test")}
    torch.manual_seed(seed)
    model = load_model(str(EXAMPLES / f"{file}:{builder}")).model
    program = rc.compile(model, train[0][:64], wiring, granularity=granularity, seed=seed)
    given = {k: getattr(options, k) for k in ("lr", "readout_rate", "weight_decay", "epochs", "beta2", "batch_size")}
    settings = with_flags(replace(program.plan.training, schedule="linear"), **given)
    started = time.perf_counter()
    valid = parts["valid"] if options.valid else None
    run = Run(program, (train[0][:count], train[1][:count]), settings, valid=valid, test=parts["test"], seed=seed)
    epochs = list(run)
    return {
        "case": case, "seed": seed, "images": count, "epochs": settings.epochs, "lr": settings.lr,
        "readout_rate": settings.readout_rate, "weight_decay": settings.weight_decay, "beta2": settings.beta2,
        "batch_size": settings.batch_size, "train": epochs[-1].train_error, "valid": epochs[-1].valid_error,
        "test": epochs[-1].test_error, "seconds": round(time.perf_counter() - started),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--valid", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    for name in ("lr", "readout-rate", "weight-decay", "beta2"):
        parser.add_argument(f"--{name}", type=float, default=None)
    parser.add_argument("--out", type=Path, default=Path("build/accuracy_cifar.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for case in options.only:
            result = one(case, seed, options)
            with options.out.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
