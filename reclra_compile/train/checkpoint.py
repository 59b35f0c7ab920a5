"""Save and resume a run: one file, replaced atomically after every epoch."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from reclra_compile.errors import Fault, Location, PlanError, TrainingError
from reclra_compile.files import write_atomically
from reclra_compile.ir import Cost, Placement, Plan, Training
from reclra_compile.train.loop import Epoch, Run

FORMAT = 1
Facts = dict[str, str | int]


def save(path: str | os.PathLike[str], run: Run, history: list[Epoch], facts: Facts) -> None:
    """Write everything the run needs to go on: weights, synapses, optimizer, random state, history.

    `facts` (data, seed) have to be the same where it is resumed. Raises UserError (F001) where the
    file cannot be written.
    """
    state = {
        "format": FORMAT,
        "plan": str(run.program.plan),
        "settings": asdict(run.settings),
        "facts": facts,
        "model": run.program.model.state_dict(),
        "program": run.program.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "generator": run.generator.get_state(),
        "random": _random(),
        "epoch": run.epoch,
        "seconds": run.seconds,
        "history": [e.as_json() for e in history],
    }
    write_atomically(path, lambda file: torch.save(state, file))


def resume(path: str | os.PathLike[str], run: Run, facts: Facts) -> list[Epoch]:
    """Restore a run from its checkpoint; returns the epochs it has done.

    Raises TrainingError: T020 for an unreadable file, T021 for another model, wiring or settings.
    """
    where = Location(str(path))
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file fails in many ways, none of them in its documentation
        raise _unreadable(where, error) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise TrainingError(
            Fault("T020", "this is not a checkpoint of a run", where, "name the --run-dir that an earlier run made")
        )
    try:
        _compare(state, run, facts, where)
        return _restore(state, run)
    except TrainingError:
        raise
    except Exception as error:
        raise _unreadable(where, error) from error


def _unreadable(where: Location, error: Exception) -> TrainingError:
    lines = str(error).splitlines()
    reason = lines[0].split(". ")[0] if lines else type(error).__name__
    return TrainingError(
        Fault("T020", f"the checkpoint is damaged: {reason}", where,
              "put a copy of it back, or remove it and run without --resume")
    )


def _compare(state: dict[str, Any], run: Run, facts: Facts, where: Location) -> None:
    """Raise TrainingError (T021) where the checkpoint's run is another than this one."""
    plan = run.program.plan
    try:
        saved = Plan.parse(state["plan"], str(where))
    except PlanError as error:
        raise _unreadable(where, error) from error
    if saved.fingerprint != plan.fingerprint:
        raise _other(where, f"belongs to another model: {saved.model} {saved.fingerprint}, not "
                     f"{plan.model} {plan.fingerprint}", "resume with the same MODEL")  # fmt: skip
    for name in ("microbatches", "staleness"):
        before, now = getattr(saved.schedule, name), getattr(plan.schedule, name)
        if before != now:
            raise _other(where, f"was made with {name} {before}, not {now}", f"resume with --{name} {before}")
    if _essence(saved) != _essence(plan):
        names = f": {saved.name}, not {plan.name}" if saved.name != plan.name else ", or to an edited one"
        raise _other(where, f"belongs to another wiring{names}", "resume with the same --wiring")
    # settings and ways to treat the data may be younger than the file
    defaults: dict[str, Any] = {**asdict(Training()), "preprocess": "none", "augment": "none"}
    before = {**defaults, **state["settings"], **state["facts"]}
    now = {**asdict(run.settings), **facts}
    steady = before["schedule"] == "constant" and not before["warmup"]
    if steady and now["epochs"] >= state["epoch"]:
        before["epochs"] = now["epochs"]  # nothing that is done depends on what is still to come
    changed = [f"{k} was {before.get(k)} and is {v}" for k, v in now.items() if before.get(k) != v]
    if changed:
        raise _other(where, f"was made with other settings: {', '.join(changed)}", "resume with the same options")


def _other(where: Location, what: str, fix: str) -> TrainingError:
    return TrainingError(Fault("T021", f"the checkpoint {what}", where, f"{fix}, or start in another --run-dir"))


def _essence(plan: Plan) -> Plan:
    """What of a plan decides a run's results: not where its lines stand, what it costs or where it runs."""
    regions = tuple(
        replace(r, source="", forward_bytes=0, weight_bytes=0, input_bytes=0, output_bytes=(), z_bytes=0,
                parameter_sizes=())
        for r in plan.regions
    )  # fmt: skip
    return replace(plan, regions=regions, tasks=(), batch=0, devices=(), placement=Placement(), cost=Cost(),
                   training=Training(), warnings=())  # fmt: skip


def _restore(state: dict[str, Any], run: Run) -> list[Epoch]:
    run.program.model.load_state_dict(state["model"])
    run.program.load_state_dict(state["program"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.generator.set_state(state["generator"])
    torch.set_rng_state(state["random"]["cpu"])
    if state["random"]["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["random"]["cuda"])
    run.epoch, run.seconds = state["epoch"], state["seconds"]
    return [Epoch(**e) for e in state["history"]]


def _random() -> dict[str, Any]:
    """State of torch's global generators, which dropout draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def checkpoint_of(folder: Path) -> Path:
    """Where a run's folder holds its checkpoint."""
    return folder / "checkpoint.pt"
