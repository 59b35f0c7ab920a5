"""Before the first step all ranks say what they are about to run, and go on only where it is the same."""

from __future__ import annotations

import hashlib
import json
import platform
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reclra_compile import __version__
from reclra_compile.data.sets import DataSet
from reclra_compile.errors import Fault, RankError
from reclra_compile.runtime.peers import Peers

if TYPE_CHECKING:
    from reclra_compile.data.imagefolder import ImageFolder
    from reclra_compile.data.own import OwnData
    from reclra_compile.frontend.load_model import Loaded
    from reclra_compile.ir import Plan, Training

#: what is shown of a value that differs
MOST = 80


def facts_of(plan: Plan, loaded: Loaded, settings: Training, rest: Mapping[str, Any]) -> dict[str, str]:
    """What has to be the same on every rank, by name: versions, plan, model, and each setting."""
    return {
        "reclra-compile": __version__,
        "torch": str(torch.__version__),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "plan": f"'{plan.name}' for {len(plan.devices)} devices ({_digest(str(plan))})",
        "model": _model(loaded),
        "model's file": _file(loaded),
        **{f"setting '{name}'": str(value) for name, value in asdict(settings).items()},
        **{name: str(value) for name, value in rest.items()},
    }


def data_of(data: DataSet | OwnData | ImageFolder) -> str:
    """The data's name and a checksum; of a named set that of all labels, and of each part's first and last image."""
    if not isinstance(data, DataSet):
        return f"{data.name} ({data.digest()})"
    found = 0
    for images, labels in ((data.x_train, data.y_train), (data.x_valid, data.y_valid), (data.x_test, data.y_test)):
        # what is preprocessed may differ in its last bits between hosts
        ends = [images[:1], images[-1:]] if data.preprocess == "none" else []
        for array in (labels, *ends):
            found = zlib.crc32(repr((array.shape, str(array.dtype))).encode(), found)
            found = zlib.crc32(array.tobytes(), found)
    return f"{data.name} ({found:08x})"


def agree(peers: Peers, facts: Mapping[str, str]) -> None:
    """Compare the ranks' facts; raises RankError (R111) that says which ranks differ from rank 0, and in what.

    Collective: every rank raises the same.
    """
    told: list[dict[str, str]] = [json.loads(text) for text in peers.gather(json.dumps(dict(facts)))]
    first, others = told[0], list(enumerate(told))[1:]
    differing: list[str] = []
    for name in dict.fromkeys(name for known in told for name in known):
        theirs: dict[str, list[int]] = {}
        for rank, known in others:
            if known.get(name) != first.get(name):
                theirs.setdefault(known.get(name, "nothing"), []).append(rank)
        differing += [_difference(name, first.get(name, "nothing"), value, ranks) for value, ranks in theirs.items()]
    if differing:
        raise RankError(
            Fault("R111", f"the ranks would not train the same: {'; '.join(differing)}",
                  fix="start all ranks with the same command, files and packages")
        )  # fmt: skip


def _difference(name: str, first: str, value: str, ranks: list[int]) -> str:
    who = f"rank {ranks[0]} has" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} have"
    return f"{who} {name} {_short(value)}, rank 0 has {_short(first)}"


def _short(value: str) -> str:
    return value if len(value) <= MOST else f"{value[: MOST - 1]}…"


def _model(loaded: Loaded) -> str:
    """Modules, parameters and buffers: what the same file may make different."""
    model = loaded.model
    modules = [(name, type(module).__name__) for name, module in model.named_modules()]
    tensors = [(name, tuple(t.shape), str(t.dtype))
               for named in (model.named_parameters(), model.named_buffers()) for name, t in named]  # fmt: skip
    count = sum(p.numel() for p in model.parameters())
    return f"{type(model).__name__} of {count:,} parameters ({_digest(repr((modules, tensors)))})"


def _file(loaded: Loaded) -> str:
    file = getattr(loaded.module, "__file__", None)
    try:
        return _digest(Path(file).read_bytes()) if file else ""
    except OSError:  # it was removed after it was run
        return ""


def _digest(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:12]
