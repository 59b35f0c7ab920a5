"""Save and resume a run: one file, replaced atomically after every epoch."""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict
from typing import Any

import torch

from reclra_compile.errors import Fault, Location, TrainingError
from reclra_compile.files import write_atomically
from reclra_compile.train.loop import Epoch, Run

FORMAT = 1


def save(path: str | os.PathLike[str], run: Run, history: list[Epoch]) -> None:
    """Write everything the run needs to go on: weights, synapses, optimizer, random state, history."""
    state = {
        "format": FORMAT,
        "plan": str(run.program.plan),
        "settings": asdict(run.settings),
        "model": run.program.model.state_dict(),
        "program": run.program.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "generator": run.generator.get_state(),
        "random": torch.get_rng_state(),
        "epoch": run.epoch,
        "seconds": run.seconds,
        "history": [e.as_json() for e in history],
    }
    write_atomically(path, lambda file: torch.save(state, file))


def resume(path: str | os.PathLike[str], run: Run) -> list[Epoch]:
    """Restore a run from its checkpoint; returns the epochs it has done.

    Raises TrainingError (T020–T021) for an unreadable file, another model or other settings.
    """
    where = Location(str(path))
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(Fault("T020", "there is no checkpoint to resume", where, "run without --resume")) from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(Fault("T020", f"the checkpoint cannot be read: {error}", where)) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise TrainingError(Fault("T020", "this is not a checkpoint of a run", where))
    if state["plan"] != str(run.program.plan):
        raise TrainingError(
            Fault("T021", "the checkpoint belongs to another model or wiring", where,
                  "resume with the same MODEL and --wiring, or start a new --run-dir")  # fmt: skip
        )
    changed = {k: v for k, v in asdict(run.settings).items() if k != "epochs" and state["settings"][k] != v}
    changed |= {"epochs": run.settings.epochs} if run.settings.epochs < state["epoch"] else {}
    if changed:
        text = ", ".join(f"{k} {state['settings'][k]} → {v}" for k, v in changed.items())
        raise TrainingError(Fault("T021", f"the checkpoint was made with other settings: {text}", where))
    run.program.model.load_state_dict(state["model"])
    run.program.load_state_dict(state["program"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.generator.set_state(state["generator"])
    torch.set_rng_state(state["random"])
    run.epoch, run.seconds = state["epoch"], state["seconds"]
    return [Epoch(**e) for e in state["history"]]
