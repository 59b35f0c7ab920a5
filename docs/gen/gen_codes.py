"""The page of all codes: what `reclra-compile explain` says of each."""

from __future__ import annotations

from reclra_compile.explain.entries import Entry, groups

INTRO = """# Codes of errors and warnings

Generated from what `reclra-compile explain CODE` says. A code never changes its meaning; the search above finds it too.

| codes | of |
|---|---|
"""


def page() -> str:
    """The Markdown of the page: a section for each letter, and in it one for each code, with its code as anchor."""
    text = [INTRO + "\n".join(f"| [{g.letter}](#{g.letter}) | {g.title}: {g.about} |" for g in groups()) + "\n"]
    for group in groups():
        text.append(f"## {group.letter}: {group.title} {{#{group.letter}}}\n")
        text += [_section(entry) for entry in group.entries]
    return "\n".join(text)


def _section(entry: Entry) -> str:
    parts = [f"#### {entry.code}: {entry.title} {{#{entry.code}}}", entry.cause]
    if entry.example:
        parts.append(f"```text\n{entry.example}\n```")
    name = entry.page.partition("#")[0]
    parts.append(f"Fix: {entry.fix} More: [{name}](../{entry.page}).")
    return "\n\n".join(parts) + "\n"
