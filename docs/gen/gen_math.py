"""Formulas: `$…$` and `$$…$$` of a page, which repository viewers draw too, become MathML when the site is built."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def formulas(page: str) -> str:
    """The page with its formulas as MathML, and their LaTeX text as what a screen reader may read."""
    page = BLOCK.sub(lambda m: f'<div class="formula">{_mathml(m[1], "block")}</div>', page)
    return INLINE.sub(lambda m: _mathml(m[1], "inline"), page)


def _mathml(latex: str, display: str) -> str:
    text = html.unescape(latex).strip()
    made = convert(text, display=display)
    return made.replace("<math ", f'<math alttext="{html.escape(text, quote=True)}" ', 1)
