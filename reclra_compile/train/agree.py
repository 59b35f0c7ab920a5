"""Ranks that fail together: what one of them finds wrong, all of them raise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from reclra_compile.errors import Fault, Location, ReclraError, TrainingError, UserError
from reclra_compile.runtime.peers import Peers


def agree(peers: Peers, error: ReclraError | None) -> None:
    """Raise on every rank what any rank found wrong, the lowest rank's first; collective."""
    if peers.count == 1:
        if error is not None:
            raise error
        return
    told = [json.loads(text) for text in peers.gather(json.dumps(as_json(error)))]
    raise_first(told, error)


def raise_first(told: Sequence[list[dict[str, Any]]], own: ReclraError | None = None) -> None:
    """Raise the first error of `told`, the ranks' faults as `as_json` gives them; `own` is where it came from here.

    Where not all ranks have one, the message begins with the one that has: "rank 1: …".
    """
    found = next(((rank, faults) for rank, faults in enumerate(told) if faults), None)
    if found is None:
        return
    whose = "" if all(told) else f"rank {found[0]}: "
    faults = [_fault({**f, "message": f"{whose}{f['message']}"}) for f in found[1]]
    kind = TrainingError if faults[0].code.startswith("T") else UserError
    raise kind(faults) from own


def as_json(error: ReclraError | None) -> list[dict[str, Any]]:
    """An error's faults as JSON has them; [] for none."""
    return [asdict(f) for f in error.faults] if error else []


def _fault(given: dict[str, Any]) -> Fault:
    return Fault(**{**given, "where": Location(**given["where"]) if given["where"] else None})
