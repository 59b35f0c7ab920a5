"""Tensors in files of the safetensors format, each with a checksum that is made while it is written."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from torch import Tensor

from reclra_compile.errors import Fault, Location, UserError
from reclra_compile.files import write_atomically

#: names of the format; complex numbers and quantised ones have none
KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.complex64: "C64",
}  # fmt: skip
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Shard:
    """A file of tensors: its name in its folder, its size and SHA-256, and the names of the tensors in it."""

    file: str
    bytes: int
    sha256: str
    tensors: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The record in a manifest."""
        return {"file": self.file, "bytes": self.bytes, "sha256": self.sha256, "tensors": list(self.tensors)}

    @classmethod
    def parse(cls, given: Any) -> Shard:
        """The record of a manifest; raises ValueError where it is none, or leads out of its folder."""
        try:
            found = cls(str(given["file"]), int(given["bytes"]), str(given["sha256"]), tuple(given["tensors"]))
        except (KeyError, TypeError) as error:
            raise ValueError("its manifest is not whole") from error
        if Path(found.file).name != found.file or not all(isinstance(name, str) for name in found.tensors):
            raise ValueError(f"its manifest names a file '{found.file}'")
        return found


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> Shard:
    """Write tensors from any device, one after the other; atomically. Raises UserError (F001)."""
    # the largest elements first: each tensor then begins where its elements may, as readers that map the file need
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, end = {}, 0
    for name in names:
        x = tensors[name]
        if x.dtype not in KINDS:
            raise UserError(Fault("F001", f"{name} is of {x.dtype}, which the safetensors format has no name for",
                                  Location(str(path)), "train in one process, which keeps one file of torch's own"))
        begin, end = end, end + x.numel() * x.element_size()
        header[name] = {"dtype": KINDS[x.dtype], "shape": list(x.shape), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    digest, size = hashlib.sha256(), 0

    def write(file: IO[bytes]) -> None:
        nonlocal size
        for part in (struct.pack("<Q", len(head)), head):
            digest.update(part)
            size += file.write(part)
        for name in names:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            values: Any = flat.numpy()  # bytes, without a copy
            digest.update(values)
            size += file.write(values)

    write_atomically(path, write)
    return Shard(path.name, size, digest.hexdigest(), tuple(sorted(names)))


class Shards:
    """The tensors of several shards by name; a file is looked at, and its checksum checked, when it is needed."""

    def __init__(self, folder: Path, shards: list[Shard]) -> None:
        self._folder = folder
        self._of = {name: shard for shard in shards for name in shard.tensors}
        self._open: dict[str, Any] = {}

    @property
    def names(self) -> set[str]:
        """All tensors' names."""
        return set(self._of)

    def take(self, name: str) -> Tensor:
        """A tensor on the CPU; raises ValueError where it is missing or its shard is damaged."""
        shard = self._of.get(name)
        if shard is None:
            raise ValueError(f"it has no {name}")
        if shard.file not in self._open:
            path = self._folder / shard.file
            _check(path, shard)
            self._open[shard.file] = safe_open(path, framework="pt", device="cpu")
        tensor: Tensor = self._open[shard.file].get_tensor(name)
        return tensor.clone()  # not a view of the file, which may be removed


def _check(path: Path, shard: Shard) -> None:
    """Raise ValueError where a shard is not what was written."""
    if not path.is_file():
        raise ValueError(f"its shard {shard.file} is missing")
    if path.stat().st_size != shard.bytes:
        raise ValueError(f"its shard {shard.file} has {path.stat().st_size:,} bytes, not {shard.bytes:,}")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != shard.sha256:
        raise ValueError(f"its shard {shard.file} is not what was written: the checksum differs")
