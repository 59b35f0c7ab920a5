"""Writing a diagnosis to a file, in the format its suffix names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from reclra_compile.diagnose.facts import Diagnosis, Finding
from reclra_compile.diagnose.page import to_html
from reclra_compile.diagnose.plot import HEIGHT, WIDTH, to_svg
from reclra_compile.errors import Fault, Location, UserError
from reclra_compile.view.draw import check_suffix, write_content
from reclra_compile.view.png import svg_png

FORMATS = (".html", ".svg", ".png")
_DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise UserError (V001 to V004) before any work where the picture could not be written afterwards."""
    file = Path(path)
    check_suffix(file, FORMATS)
    if not file.absolute().parent.is_dir():
        raise UserError(
            Fault("V004", "cannot write this file: there is no such folder", Location(str(file)),
                  "name a file in a folder that exists and that you may write to")
        )  # fmt: skip
    if file.suffix.lower() == ".png":
        svg_png(_DOT, 1, 1)


def write_diagnosis(diagnosis: Diagnosis, found: Sequence[Finding], path: str | os.PathLike[str]) -> None:
    """Write the picture as .svg or .png, or the page with warnings and numbers as .html; raises as `check_picture`."""
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".html":
        write_content(file, to_html(diagnosis, found))
    elif suffix == ".svg":
        write_content(file, to_svg(diagnosis))
    else:
        write_content(file, svg_png(to_svg(diagnosis), WIDTH, HEIGHT))
