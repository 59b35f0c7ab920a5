"""The commands that repeat the runs of a report, as a shell takes them. Torch-free."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from reclra_compile.report.runs import Run


def commands_of(runs: Sequence[Run]) -> list[str]:
    """The commands that made the runs, each once."""
    return list(dict.fromkeys(shell(r.about["command"]) for r in runs if r.about.get("command")))


def shell(words: Sequence[str]) -> str:
    """Words as one line for a shell; `$HOME` stays what it stands for."""
    return " ".join(_quoted(str(word)) for word in words)


def _quoted(word: str) -> str:
    if re.search(r"(?:^|[=:,])\$HOME(?:/|$)", word):
        return '"' + re.sub(r'(["\\`]|\$(?!HOME(?:/|$)))', r"\\\1", word) + '"'
    return shlex.quote(word)
