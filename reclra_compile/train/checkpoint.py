"""Save and resume a run: one process keeps one file, ranks keep a folder of shards; either resumes the other's.

Both are replaced as a whole, after every epoch and, where it is asked for, after a number of steps.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from reclra_compile.errors import Fault, Location, PlanError, TrainingError
from reclra_compile.files import is_temporary, write_atomically
from reclra_compile.ir import Cost, Placement, Plan, Training
from reclra_compile.runtime.peers import Alone, Peers
from reclra_compile.train import position, sharded
from reclra_compile.train.agree import agree
from reclra_compile.train.loop import Epoch, Run
from reclra_compile.train.named import Source, parameter_names, restore
from reclra_compile.train.one_file import File
from reclra_compile.train.sharded import Sharded

#: 1 had no data position and no names of the optimizer's parameters
FORMAT = 2
FILE, FOLDER = "checkpoint.pt", "checkpoint"
Facts = dict[str, str | int]


def keep(folder: Path, run: Run, history: list[Epoch], facts: Facts) -> None:
    """Save a run in its folder, in the form of one process or of ranks, then remove what it replaces; collective.

    Raises UserError (F001, F002) where that cannot be written.
    """
    if isinstance(run.program.peers, Alone):
        save(folder / FILE, run, history, facts)
        sharded.remove_all(folder / FOLDER)
    else:
        sharded.save(folder / FOLDER, run, _head(run, history, facts))
    if run.program.peers.rank == 0:
        _tidy(folder, () if isinstance(run.program.peers, Alone) else (FILE,))
    run.kept = position.in_words(run)


def _tidy(folder: Path, old: tuple[str, ...]) -> None:
    """Remove `old` files, and what is left of files that were being written when a process was killed."""
    with contextlib.suppress(OSError):  # the new checkpoint is safe, and no run has to end for an old one
        found = [p.name for p in folder.iterdir()]
        unfinished = [f for f in found if any(is_temporary(f, name) for name in (FILE, "log.jsonl", "plan.txt"))]
        for name in (*old, *unfinished):
            (folder / name).unlink(missing_ok=True)


def begin(folder: Path, run: Run, facts: Facts, resumes: bool) -> list[Epoch]:
    """Resume a run from its folder where it is asked for and there is something; tidies up after cut saves. Collective.

    Returns the epochs it has done; raises TrainingError (T020, T021).
    """
    peers = run.program.peers
    if peers.rank == 0:
        sharded.remove_torn(folder / FOLDER)
    saved = found_by_all(folder, peers) if resumes else None
    return [] if saved is None else resume(saved, run, facts)


def save(path: str | os.PathLike[str], run: Run, history: list[Epoch], facts: Facts) -> None:
    """Write everything the run needs to go on: weights, synapses, optimizer, random state, data position, history.

    `facts` (data, seed) have to be the same where it is resumed. Raises UserError (F001) where the
    file cannot be written.
    """
    names = parameter_names(run.program)
    state = {
        **_head(run, history, facts),
        "losses": [run.losses],
        "model": run.program.model.state_dict(),
        "program": run.program.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "names": {
            "parameters": list(names.values()),
            "optimizer": [names[id(p)] for group in run.optimizer.param_groups for p in group["params"]],
        },
        "generator": run.begun,
        "random": _random(),
    }
    write_atomically(path, lambda file: torch.save(state, file))


def resume(path: str | os.PathLike[str], run: Run, facts: Facts) -> list[Epoch]:
    """Restore a run from a checkpoint, a file or a folder of shards; returns the epochs it has done. Collective.

    Raises TrainingError: T020 for an unreadable file, T021 for another model, wiring or settings; on all ranks where
    one of them finds a fault.
    """
    history: list[Epoch] = []
    fault: TrainingError | None = None
    try:
        history = _resume(Path(path), run, facts)
    except TrainingError as error:
        fault = error
    agree(run.program.peers, fault)
    return history


def load_weights(path: Path, run: Run) -> None:
    """Put a checkpoint's weights, synapses and random state into a run of one process, whatever its settings.

    Raises TrainingError (T020) for one that is missing, damaged, or does not fit the run.
    """
    where = Location(str(path))
    source = _source(path, run, where)
    try:
        restore(run, source)
    except Exception as error:
        raise _unreadable(where, error) from error


def _source(path: Path, run: Run, where: Location) -> Source:
    try:
        return Sharded(path) if path.is_dir() else File(path, run)
    except FileNotFoundError as error:
        raise TrainingError(
            Fault("T020", "there is no checkpoint", where, "wait for the first one, or put a copy of it back")
        ) from error
    except Exception as error:  # a damaged file fails in many ways, none of them in its documentation
        raise _unreadable(where, error) from error


def _resume(path: Path, run: Run, facts: Facts) -> list[Epoch]:
    where = Location(str(path))
    source = _source(path, run, where)
    if source.head.get("format") not in range(1, FORMAT + 1):
        raise TrainingError(
            Fault("T020", "this is not a checkpoint of a run", where, "name the --run-dir that an earlier run made")
        )
    try:
        _compare(source.head, run, facts, where)
        position.check(source.head, run)
        restore(run, source)
        return position.put(source.head, run)
    except TrainingError:
        raise
    except Exception as error:
        raise _unreadable(where, error) from error


def _unreadable(where: Location, error: Exception) -> TrainingError:
    lines = str(error).splitlines()
    reason = lines[0].split(". ")[0] if lines else ""
    unread = isinstance(error, (struct.error, EOFError, KeyError, pickle.UnpicklingError))  # whose words say nothing
    reason = "it is not whole, or no checkpoint" if unread or not reason else reason
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
    if steady and now["epochs"] >= state["epoch"] + bool(state.get("done")):
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


def _head(run: Run, history: list[Epoch], facts: Facts) -> dict[str, Any]:
    """What both forms say of a run, beside its tensors: `done` are the steps in the epoch that is being trained."""
    peers = run.program.peers
    return {
        "format": FORMAT, "plan": str(run.program.plan), "settings": asdict(run.settings), "facts": facts,
        "stages": peers.stages, "replicas": peers.replicas, "epoch": run.epoch, "done": run.done,
        "seconds": run.seconds, "history": [e.as_json() for e in history],
    }  # fmt: skip


def _random() -> dict[str, Any]:
    """State of torch's global generators, which dropout draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def checkpoint_of(folder: Path) -> Path:
    """Where a run's folder holds its newest checkpoint, a file or a folder of shards; the file's place for none."""
    file, shards = folder / FILE, sharded.folders(folder / FOLDER)
    if not shards:
        return file
    if not file.exists():
        return shards[-1]
    # a run that changed its form, and was ended before it removed the other one's
    at_file, at_shards = (_when(read) for read in (lambda: _peek(file), lambda: Sharded(shards[-1]).head))
    return file if at_file > at_shards else shards[-1]


def found_by_all(folder: Path, peers: Peers) -> Path | None:
    """The newest checkpoint of a run's folder, None for none; collective.

    Raises TrainingError (T020) where ranks see different ones.
    """
    place = checkpoint_of(folder)
    name = str(place.relative_to(folder)) if place.exists() else ""
    for rank, other in enumerate(peers.gather(name)):
        if other != name:
            first, second = (f"'{seen}'" if seen else "none" for seen in (name, other))
            raise TrainingError(
                Fault("T020", f"rank {peers.rank} sees the checkpoint {first}, rank {rank} {second}",
                      Location(str(folder)), "name a --run-dir that all hosts share")
            )
    return place if name else None


def _peek(file: Path) -> dict[str, Any]:
    found = torch.load(file, weights_only=True, map_location="cpu", mmap=True)
    return {"epoch": found["epoch"], "done": found.get("done", 0)}


def _when(read: Callable[[], dict[str, Any]]) -> tuple[float, int]:
    """Epochs and steps done; what cannot be read counts as the newest, so that resuming it says what is wrong."""
    try:
        head = read()
        return float(head["epoch"]), int(head["done"])
    except Exception:  # a damaged file fails in many ways
        return float("inf"), 0
