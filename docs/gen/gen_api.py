"""The page of every public name, which mkdocstrings fills from signatures and docstrings without importing them."""

from __future__ import annotations

import reclra_compile

INTRO = """# Every public name

Generated from signatures and docstrings. [Python interface](../python.md) introduces them with code that runs.
"""
#: sections of the page; a public name in none of them stands under "More"
SECTIONS = {
    "Compile and attach": ("compile", "plan_for", "threaded", "attach", "detach", "Attachment", "Program"),
    "Wirings": ("load_wiring", "shipped", "Wiring"),
    "Plans": ("Plan", "Region", "Target", "Pathway", "Task", "Schedule", "Device", "Machine"),
    "Pictures and reports": ("write_picture", "Discrepancy"),
    "Rules of your own": ("register_target", "register_update"),
    "Processes": ("connect", "Mesh", "RankProgram", "ThreadedProgram"),
    "Errors": ("ReclraError", "Fault", "Notice", "UserError", "WiringError", "ModelError", "DataError", "TrainingError",
               "PlacementError", "CostError", "RankError", "PlanError"),
}  # fmt: skip
#: fields of a wiring are on a page of their own; those of error classes are their base's
WITHOUT_MEMBERS = {"Wiring"}
#: what these inherit is part of what people use them for
WITH_INHERITED = {"Program"}


def names() -> dict[str, list[str]]:
    """All public names by section, in the order of the page."""
    public = [name for name in reclra_compile.__all__ if not name.startswith("__")]
    sections = {title: [n for n in wanted if n in public] for title, wanted in SECTIONS.items()}
    placed = {n for found in sections.values() for n in found}
    more = [n for n in public if n not in placed]
    return {title: found for title, found in {**sections, "More": more}.items() if found}


def page() -> str:
    """The Markdown of the page, one `:::` block for each public name, where it is defined."""
    text = [INTRO]
    for title, found in names().items():
        text.append(f"## {title}\n")
        for name in found:
            home = reclra_compile._HOME[name]
            text.append(f"::: {home}.{name}")
            if name in WITHOUT_MEMBERS:
                text.append("    options: {members: false}")
            if name in WITH_INHERITED:
                text.append("    options: {inherited_members: true}")
            text.append("")
    return "\n".join(text)
