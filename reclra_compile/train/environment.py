"""What a run ran on, as it may be shown to anybody: versions and processors, no names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reclra_compile import __version__

#: how the command is called, whatever the path of its script was
PROGRAM = "reclra-compile"


def environment() -> dict[str, Any]:
    """Versions of Python, torch and this package; system, processor, its cores, GPUs, and threads of torch."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(k) for k in range(count)]
    return {
        "reclra_compile": __version__, "torch": torch.__version__, "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}".strip(), "processor": processor(),
        "cores": os.cpu_count() or 1, "gpus": gpus, "threads": torch.get_num_threads(),
    }  # fmt: skip


def processor() -> str:
    """The name of the CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine()


def command_line(arguments: Sequence[str] | None = None) -> list[str]:
    """The words of this command; `$HOME` stands for the user's own folder."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    home = os.path.expanduser("~").rstrip(os.sep)
    if len(home) > 1:
        words = [re.sub(rf"(?<![^=:,]){re.escape(home)}(?=/|$)", "$HOME", w) for w in words]
    return [PROGRAM, *words]
