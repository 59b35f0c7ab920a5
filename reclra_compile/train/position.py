"""Where a run is: the part of a checkpoint's head that says so, checked before anything of it is used."""

from __future__ import annotations

import math
from typing import Any

from reclra_compile.train.loop import Epoch, Run


def check(head: dict[str, Any], run: Run) -> None:
    """Raise ValueError where a checkpoint's position is none that this run, of the same settings, can have."""
    stages, replicas = head.get("stages", 1), head.get("replicas", 1)
    losses, history = head.get("losses", [0.0]), head.get("history")
    right = {
        "epoch": _within(head.get("epoch"), 0, run.settings.epochs),
        "done": _within(head.get("done", 0), 0, run.steps - 1),
        "seconds": _number(head.get("seconds")) and head["seconds"] >= 0,
        "stages": _within(stages, 1), "replicas": _within(replicas, 1),
        "losses": isinstance(losses, list) and all(map(_number, losses)) and losses != [],
        "history": isinstance(history, list) and all(isinstance(e, dict) for e in history),
    }  # fmt: skip
    wrong = [name for name, is_right in right.items() if not is_right]
    if not wrong and len(losses) != stages * replicas:
        wrong = ["losses"]
    if wrong:
        raise ValueError(f"its {wrong[0]} cannot be {str(head.get(wrong[0]))[:40]}")


def put(head: dict[str, Any], run: Run) -> list[Epoch]:
    """Put a run where its checkpoint was made; the epoch's losses go where they were, or else to the first rank."""
    peers = run.program.peers
    run.epoch, run.done, run.seconds = head["epoch"], head.get("done", 0), head["seconds"]
    losses = head.get("losses", [0.0])
    same = (head.get("stages", 1), head.get("replicas", 1)) == (peers.stages, peers.replicas)
    run.losses = losses[peers.rank] if same else sum(losses) * (peers.rank == 0)
    run.kept = in_words(run)
    return [Epoch(**e) for e in head["history"]]


def in_words(run: Run) -> str:
    """How far a run is: "epoch 2", or "step 120" of all."""
    return f"step {run.taken}" if run.done else f"epoch {run.epoch}"


def _within(given: Any, least: int, most: float = math.inf) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and least <= given <= most


def _number(given: Any) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given)
