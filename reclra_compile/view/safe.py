"""What lets a page hold anybody's names, and run its own script and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

#: characters that could end a script element or a line of script
_ENDING = "<>&\u2028\u2029"


def policy(script: str) -> str:
    """The Content-Security-Policy of a page with this `script`: no name becomes code, and nothing is fetched."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def json_text(value: Any) -> str:
    """JSON that can stand in a page: nothing in it ends its element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for bad in _ENDING:
        text = text.replace(bad, f"\\u{ord(bad):04x}")
    return text.encode("utf-8", "replace").decode()
