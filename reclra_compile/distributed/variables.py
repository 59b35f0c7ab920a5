"""What a launcher says to each process that it starts, in environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reclra_compile.errors import Fault, RankError

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: those that are numbers, and the largest that each may be where nothing else says so
NUMBERS = {"WORLD_SIZE": 10**9, "RANK": 10**9, "LOCAL_RANK": 10**9, "MASTER_PORT": 65535}


def check_variables(fix: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raise RankError (R101) that names the variable where they do not say which rank this process is."""
    missing = [name for name in NEEDED if not environment.get(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise RankError(
            Fault("R101", f"this process does not know which rank it is: {', '.join(missing)} {verb} not set", fix=fix)
        )
    for name, most in NUMBERS.items():
        text = environment.get(name, "0")
        if not (text.isascii() and text.isdigit() and int(text) <= most):
            raise RankError(Fault("R101", f"{name}={text} is not a number{f' up to {most}' if most < 10**9 else ''}",
                                  fix=fix))  # fmt: skip
    rank, world = (int(environment[name]) for name in ("RANK", "WORLD_SIZE"))
    if rank >= world:
        raise RankError(
            Fault("R101", f"RANK={rank} is no rank of WORLD_SIZE={world}: they count from 0 to {max(world - 1, 0)}",
                  fix=fix)
        )  # fmt: skip
