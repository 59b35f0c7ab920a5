"""Checkpoints of ranks: a folder of shards and, written last, a manifest that names them.

A folder without a manifest is no checkpoint, so a save that is cut short anywhere leaves the one before as the newest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from reclra_compile.errors import Fault, Location, RankError, UserError
from reclra_compile.files import is_temporary, make_folder, write_text
from reclra_compile.train.agree import agree, as_json, raise_first
from reclra_compile.train.loop import Run
from reclra_compile.train.named import ORDER, random_states, weights
from reclra_compile.train.shards import Shard, Shards, write_shard

MANIFEST = "manifest.json"
_STEP = re.compile("step-[0-9]+")
_FILE = re.compile(r"manifest\.json|common\.safetensors|stage-[0-9]+\.safetensors")


class Sharded:
    """A checkpoint's folder that is read, as a `named.Source`; raises ValueError where its manifest is damaged."""

    def __init__(self, folder: Path) -> None:
        try:
            self.head: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise ValueError("its manifest cannot be read") from error
        if not isinstance(self.head, dict) or not isinstance(self.head.get("shards"), list):
            raise ValueError("its manifest is not whole")
        if self.head.get("sha256") != _digest(self.head):
            raise ValueError("its manifest is not what was written: the checksum differs")
        self._shards = Shards(folder, [Shard.parse(given) for given in self.head["shards"]])
        self.names = self._shards.names
        self.take = self._shards.take


def folders(root: Path) -> list[Path]:
    """The checkpoints below `root`, which have a manifest, the newest last."""
    return [folder for folder in _steps(root) if (folder / MANIFEST).is_file()]


def _steps(root: Path) -> list[Path]:
    """Folders of checkpoints, and of saves that were cut short."""
    try:
        found = [p for p in root.iterdir() if _STEP.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]
    except OSError:
        return []
    return sorted(found, key=lambda folder: int(folder.name[5:]))


def save(root: Path, run: Run, head: dict[str, Any]) -> None:
    """Write a new checkpoint of all ranks below `root` and remove those before; collective.

    `head` are facts for the manifest. Where one rank cannot write, all raise its UserError (F001, F002), and the
    checkpoint before stays.
    """
    folder = root / f"step-{run.taken:08d}"
    again = (folder / MANIFEST).exists()
    try:
        files = _save(folder, run, head)
    except RankError:  # a rank is lost: what the others have done is not known, and the manifest may be there
        raise
    except UserError:
        if not again:  # a full disk would stay full
            for name in _written(run):
                _unlink(folder / name)
            _rmdir(folder)
        raise
    if run.program.peers.rank == 0:
        for other in _steps(root):
            if other != folder:
                remove(other)
        for name in _ours(folder) - files:
            _unlink(folder / name)


def _save(folder: Path, run: Run, head: dict[str, Any]) -> set[str]:
    """Write shards and manifest; returns their names."""
    peers = run.program.peers
    mine: dict[str, Any] = {"losses": run.losses, "shards": [], "faults": []}
    if peers.replica == 0:
        try:
            mine["shards"] = [shard.as_json() for shard in _write(folder, run)]
        except UserError as error:
            mine["faults"] = as_json(error)
    told = [json.loads(text) for text in peers.gather(json.dumps(mine))]
    raise_first([each["faults"] for each in told])
    shards = [shard for each in told for shard in each["shards"]]
    fault: UserError | None = None
    if peers.rank == 0:
        try:
            _seen(folder, shards)
            write_manifest(folder, {**head, "losses": [each["losses"] for each in told], "shards": shards})
        except UserError as error:
            fault = error
    agree(peers, fault)
    return {MANIFEST, *(shard["file"] for shard in shards)}


def write_manifest(folder: Path, head: dict[str, Any]) -> None:
    """Make a folder of shards a checkpoint, with a checksum of all that `head` says; raises UserError (F001)."""
    write_text(folder / MANIFEST, json.dumps({**head, "sha256": _digest(head)}, indent=1) + "\n")


def _digest(head: dict[str, Any]) -> str:
    """SHA-256 of a manifest's values but this one, however they are laid out in their file."""
    rest = {name: value for name, value in head.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _seen(folder: Path, shards: list[dict[str, Any]]) -> None:
    """Raise UserError (F001) where the first rank does not find what another says it wrote."""
    for shard in shards:
        try:
            size = (folder / shard["file"]).stat().st_size
        except OSError:
            size = -1
        if size != shard["bytes"]:
            what = "is not there" if size < 0 else f"has {size:,} bytes, not {shard['bytes']:,}"
            raise UserError(
                Fault("F001", f"a shard that another rank wrote {what}", Location(str(folder / shard["file"])),
                      "name a --run-dir that all hosts share")
            )


def _written(run: Run) -> list[str]:
    """The names of this rank's shards."""
    peers = run.program.peers
    if peers.replica:
        return []
    return ["common.safetensors"] * (peers.stage == 0) + [f"stage-{peers.stage}.safetensors"]


def _write(folder: Path, run: Run) -> list[Shard]:
    """This rank's shards: what it holds of the run and, of the first rank, what is the same on all."""
    make_folder(folder)
    *shared, own = (folder / name for name in _written(run))
    tensors, random = dict(weights(run)), random_states(run)
    if not shared:
        return [write_shard(own, tensors | random)]
    # apart: ranks of other stages need it where there are more or fewer of them
    return [write_shard(shared[0], {ORDER: run.begun, **random}), write_shard(own, tensors)]


def _ours(folder: Path) -> set[str]:
    """The files of a checkpoint's folder that ranks wrote, or were writing; others are not ours to remove."""
    try:
        found = [p.name for p in folder.iterdir()]
    except OSError:
        return set()
    unfinished = {name: name[1:].rpartition(".")[0] for name in found}
    return {n for n, whole in unfinished.items() if _FILE.fullmatch(whole if is_temporary(n, whole) else n)}


def remove_torn(root: Path) -> None:
    """Remove what saves that were cut short have left below `root`."""
    for folder in _steps(root):
        if not (folder / MANIFEST).exists():
            remove(folder)


def remove_all(root: Path) -> None:
    """Remove every checkpoint below `root`, and itself where nothing else is in it."""
    for folder in _steps(root):
        remove(folder)
    _rmdir(root)


def remove(folder: Path) -> None:
    """Remove a checkpoint; first its manifest, as what is half removed is none. Never fails: it is but tidying."""
    for name in sorted(_ours(folder), key=lambda name: name != MANIFEST):
        _unlink(folder / name)
    _rmdir(folder)


def _unlink(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()


def _rmdir(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
