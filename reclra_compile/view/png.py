"""A drawing as PNG, through the optional resvg_py."""

from __future__ import annotations

from functools import lru_cache

from reclra_compile.errors import Fault, UserError
from reclra_compile.view.drawing import Drawing
from reclra_compile.view.svg import FONTS, to_svg

#: pictures with more pixels than this are drawn at a smaller scale, to bound time and memory
MOST_PIXELS = 12_000_000


def to_png(drawing: Drawing, scale: int = 2) -> bytes:
    """The drawing as a PNG on a light background, `scale` pixels for each pixel of the drawing; raises as `svg_png`."""
    return svg_png(to_svg(drawing, "light"), drawing.width, drawing.height, scale)


def svg_png(svg: str, width: float, height: float, scale: int = 2) -> bytes:
    """An SVG of that size as a PNG, `scale` pixels for each of its own.

    A large picture gets the largest smaller scale that fits `MOST_PIXELS`. Raises UserError V001
    without resvg_py and V003 where no font can be found.
    """
    try:
        import resvg_py
    except ImportError:
        raise UserError(
            Fault(
                "V001",
                "PNG needs the package resvg_py",
                fix="pip install 'reclra-compile[png]' or write .svg",
            )
        ) from None
    if not _text_shows():
        raise UserError(
            Fault("V003", "no font found on this machine: text would be missing from the PNG",
                  fix="install a sans-serif font, such as DejaVu Sans, or write .svg or .html")
        )  # fmt: skip
    while scale > 1 and width * height * scale**2 > MOST_PIXELS:
        scale -= 1
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=scale))


@lru_cache(maxsize=1)
def _text_shows() -> bool:
    """Whether the renderer finds one of the fonts: it leaves text out without a word where it does not."""
    import resvg_py

    def sample(text: str) -> bytes:
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" font-family="{FONTS}">'
            f'<text x="2" y="15" font-size="14">{text}</text></svg>'
        )
        return bytes(resvg_py.svg_to_bytes(svg_string=svg))

    return sample("Rec") != sample("")
