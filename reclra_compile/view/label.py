"""Text for pictures: how wide it is, how to shorten it, how to write numbers and escape names."""

from __future__ import annotations

import re
from html import escape

#: advance widths ÷ font size, on the wide side (those of DejaVu Sans), so that text fits in any font
_WIDTHS = {
    **dict.fromkeys("ijlI.,:;'|!()[] ", 0.36),
    **dict.fromkeys("frt-/", 0.42),
    **dict.fromkeys("mwMW@%…", 0.98),
    **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ", 0.74),
}
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def width(text: str, size: float, bold: bool = False) -> float:
    """An upper estimate of the width of `text` in pixels."""
    em = sum(_WIDTHS.get(c, 0.64 if ord(c) < 0x2E80 else 1.0) for c in text)
    return em * size * (1.1 if bold else 1.0)


def shorten(text: str, room: float, size: float, bold: bool = False) -> str:
    """`text`, with its middle replaced by an ellipsis where it is wider than `room` pixels."""
    room += 1e-6  # a box made to measure holds its text in spite of rounding
    if width(text, size, bold) <= room:
        return text
    for kept in range(len(text) - 1, 1, -1):
        # the end of a dotted module path says more than its start
        tail = (kept + 1) * 3 // 5
        short = f"{text[: kept - tail]}…{text[len(text) - tail :]}"
        if width(short, size, bold) <= room:
            return short
    return "…"


def clean(text: str) -> str:
    """`text` with U+FFFD for each character that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def xml(text: str) -> str:
    """`text` safe in XML and HTML content and attributes."""
    return escape(clean(text), quote=True)


def count(n: int) -> str:
    """A whole number with thin groups of three digits: 1 234 567."""
    return f"{n:,}".replace(",", "\u202f")


def plural(n: int, what: str) -> str:
    """A number of things: 1 region, 2 regions."""
    return f"{count(n)} {what}" + ("" if n == 1 else "s")


def amount(n: float, unit: str) -> str:
    """A quantity in three significant digits with an SI prefix: 1.25 MFLOP."""
    for limit, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # what rounds to 1000 of the smaller unit is 1 of this one
        if n >= 0.9995 * limit:
            return f"{n / limit:.{max(3, len(str(int(n / limit))))}g} {prefix}{unit}"
    return f"{n:.3g} {unit}"


def number(v: float) -> str:
    """A coordinate with at most two decimals and no trailing zeros."""
    text = f"{v:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def time_text(us: float, unit: str = "us") -> str:
    """A time in three digits: 12.3 µs, 4.56 ms, 1.2 s; 12.3 MFLOPs where `unit` is "flops"."""
    if unit == "flops":
        return amount(us, "FLOPs")
    for unit, size in (("µs", 1.0), ("ms", 1e3)):
        if us < 999.5 * size:
            return f"{us / size:.3g} {unit}"
    return f"{us / 1e6:.4g} s"
