"""Checkpoints of ranks: a folder of shards and, written last, a manifest that names them.

A folder without a manifest is no checkpoint, so a save that is cut short anywhere leaves the one before as the newest.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from reclra_compile.errors import UserError
from reclra_compile.files import make_folder, write_text
from reclra_compile.train.agree import agree, as_json, raise_first
from reclra_compile.train.loop import Run
from reclra_compile.train.named import ORDER, random_states, weights
from reclra_compile.train.shards import Shard, Shards, write_shard

MANIFEST = "manifest.json"


class Sharded:
    """A checkpoint's folder that is read, as a `named.Source`; raises ValueError where its manifest is damaged."""

    def __init__(self, folder: Path) -> None:
        try:
            self.head: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise ValueError("its manifest cannot be read") from error
        if not isinstance(self.head, dict) or not isinstance(self.head.get("shards"), list):
            raise ValueError("its manifest is not whole")
        self._shards = Shards(folder, [Shard.parse(given) for given in self.head["shards"]])
        self.names = self._shards.names
        self.take = self._shards.take


def folders(root: Path) -> list[Path]:
    """The checkpoints below `root`, which have a manifest, the newest last."""
    found = [p.parent for p in root.glob(f"step-*/{MANIFEST}") if p.parent.name[5:].isdecimal()]
    return sorted(found, key=lambda folder: int(folder.name[5:]))


def save(root: Path, run: Run, head: dict[str, Any]) -> None:
    """Write a new checkpoint of all ranks below `root` and remove those before; collective.

    `head` are facts for the manifest. Where one rank cannot write, all raise its UserError (F001, F002), and the
    checkpoint before stays.
    """
    peers = run.program.peers
    folder = root / f"step-{run.taken:08d}"
    mine: dict[str, Any] = {"losses": run.losses, "shards": [], "faults": []}
    if peers.replica == 0:
        try:
            mine["shards"] = [shard.as_json() for shard in _write(folder, run)]
        except UserError as error:
            mine["faults"] = as_json(error)
    told = [json.loads(text) for text in peers.gather(json.dumps(mine))]
    raise_first([each["faults"] for each in told])
    fault: UserError | None = None
    if peers.rank == 0:
        shards = [shard for each in told for shard in each["shards"]]
        manifest = {**head, "losses": [each["losses"] for each in told], "shards": shards}
        try:
            write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        except UserError as error:
            fault = error
    agree(peers, fault)
    if peers.rank == 0:
        _sync(folder)
        _keep_only(root, folder, {MANIFEST, *(shard["file"] for shard in shards)})


def _write(folder: Path, run: Run) -> list[Shard]:
    """This rank's shards: what it holds of the run and, of the first rank, what is the same on all."""
    make_folder(folder)
    stage, random = run.program.peers.stage, random_states(run)
    own = dict(weights(run))
    if stage:
        return [write_shard(folder / f"stage-{stage}.safetensors", own | random)]
    shared = {ORDER: run.begun, **random}  # apart: ranks of other stages need it where there are more or fewer of them
    return [write_shard(folder / "common.safetensors", shared), write_shard(folder / "stage-0.safetensors", own)]


def _keep_only(root: Path, folder: Path, files: set[str]) -> None:
    """Remove other checkpoints, what is left of saves that were cut short, and what else is in this one's folder."""
    for other in root.glob("step-*"):
        if other != folder:
            remove(other)
    for file in folder.iterdir():
        if file.name not in files:
            file.unlink(missing_ok=True)


def remove_all(root: Path) -> None:
    """Remove every checkpoint below `root`, and itself."""
    for folder in root.glob("step-*"):
        remove(folder)
    shutil.rmtree(root, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a checkpoint; first its manifest, as what is half removed is none."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Let the names of a folder's files reach the disk before others are removed, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
