"""The page of all codes, collected from the tables of the pages that explain them."""

from __future__ import annotations

import re
from pathlib import Path

INTRO = """# Codes of errors and warnings

Generated from the tables of the pages named on the right, where the context is. A code never changes its meaning.

"""
KINDS = {
    "A": "attach", "C": "costs", "D": "data", "F": "files", "G": "diagnose", "I": "init and explain", "L": "rules",
    "M": "models", "N": "devices and placement", "P": "plans", "R": "runs and processes", "S": "the simulator",
    "T": "training", "V": "pictures", "W": "wirings", "X": "step graphs", "Y": "reports",
}  # fmt: skip
ROW = re.compile(r"^\| ([A-Z]\d{3}) \| (.*) \|$", re.MULTILINE)


def page(docs: Path) -> str:
    """The Markdown of the page: a table for each letter, with the page that each row comes from."""
    rows: dict[str, list[tuple[str, str, str, str]]] = {}
    for file in sorted(docs.glob("*.md")):
        text = file.read_text(encoding="utf-8")
        title = text.partition("\n")[0].lstrip("# ")
        for found in ROW.finditer(text):
            meaning = re.sub(r"\]\((?!\w+:)([^)\s]+)\)", lambda m, f=file: f"]({_moved(m[1], f.name)})", found[2])
            rows.setdefault(found[1][0], []).append((found[1], meaning, file.name, title))
    text = [INTRO]
    for letter in sorted(rows):
        width = max(meaning.count(" | ") for _, meaning, *_ in rows[letter])
        text.append(f"## {letter}: {KINDS.get(letter, 'others')}\n\n| code | meaning |{' |' * width} page |")
        text.append("|---|---|" + "---|" * (width + 1))
        for code, meaning, name, title in sorted(rows[letter]):
            rest = " |" * (width - meaning.count(" | "))
            text.append(f"| {code} | {meaning} |{rest} [{title}](../{name}) |")
        text.append("")
    return "\n".join(text)


def _moved(link: str, page: str) -> str:
    return f"../{page}{link}" if link.startswith("#") else f"../{link}"
