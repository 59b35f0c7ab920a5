"""Writing a picture of a plan to a file, in the format its suffix names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from reclra_compile.errors import Fault, Location, UserError
from reclra_compile.files import write_atomically
from reclra_compile.ir import Plan
from reclra_compile.view.dot import to_dot
from reclra_compile.view.html import to_html
from reclra_compile.view.layout import layout
from reclra_compile.view.mermaid import to_mermaid
from reclra_compile.view.png import to_png
from reclra_compile.view.recorded import Recorded
from reclra_compile.view.svg import to_svg

_WRITERS: dict[str, Callable[[Plan], str | bytes]] = {
    ".html": to_html,
    ".svg": lambda plan: to_svg(layout(plan), "light"),
    ".png": lambda plan: to_png(layout(plan)),
    ".dot": to_dot,
    ".mmd": to_mermaid,
    ".mermaid": to_mermaid,
}


def write_picture(
    plan: Plan, path: str | os.PathLike[str], *, beside: Plan | None = None, trace: Recorded | None = None
) -> None:
    """Write the error graph to `path` (.html, .svg, .png, .dot, .mmd or .mermaid); the file appears whole or not.

    A page (.html) can have a second wiring of the model `beside` it, and the `trace` of a real step under the
    predicted one. Raises UserError: V001 and V003 for a PNG that cannot be made, V002 for another suffix, V004
    where the file cannot be written, V005 and V006 for a trace that is not measured or of another plan, V007 where only
    a page can show these, V008 where `beside` is of another model.
    """
    file = Path(path)
    check_suffix(file, _WRITERS)
    suffix = file.suffix.lower()
    if suffix == ".html":
        write_content(file, to_html(plan, beside=beside, timeline=trace))
        return
    if beside is not None or trace is not None:
        what = "two wirings side by side" if beside is not None else "a trace"
        raise UserError(
            Fault("V007", f"a picture in the format {suffix} cannot show {what}", Location(str(file)),
                  fix="end the name in .html")
        )  # fmt: skip
    write_content(file, _WRITERS[suffix](plan))


def check_suffix(file: Path, formats: Iterable[str]) -> None:
    """Raise UserError (V002) where the file's suffix is none of the formats'."""
    if file.suffix.lower() not in formats:
        found = f"the suffix '{file.suffix}'" if file.suffix else "a name without a suffix"
        raise UserError(
            Fault("V002", f"{found} names no picture format", Location(str(file)),
                  fix=f"end the name in one of {', '.join(formats)}")
        )  # fmt: skip


def write_content(file: Path, content: str | bytes) -> None:
    """Write a picture atomically; raises UserError (V004)."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    write_atomically(file, lambda f: f.write(data), code="V004")
