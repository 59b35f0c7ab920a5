"""Links that leave docs/: to pages of the root folder, and to source files, which get a page each.

The pages are written for viewers of a repository, where `../examples/cnn.py` is a file. In the site the same link leads
to a listing of that file, and to the line of a function where the link's text ends in the function's name.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

LINK = re.compile(r"(\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
TO_SOURCE = re.compile(r'<a href="((?:\.\./)*source/([\w./-]+)\.html)"><code>([\w.]+)</code></a>')
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".cff": "yaml", ".js": "javascript", ".css": "css"}


def place_of(source: str) -> str:
    """The page of a source file in the site."""
    return f"source/{source}.md"


def moved(text: str, name: str, place: str) -> str:
    """The text of a page of the root folder with its links as seen from docs/`place`, as if it stood there."""

    def link(match: re.Match[str]) -> str:
        target = match[2]
        if re.match(r"\w+:|#", target):
            return match[0]
        return f"{match[1]}({posixpath.relpath(target, posixpath.join('docs', posixpath.dirname(place)))})"

    return _outside_fences(text, lambda part: LINK.sub(link, part))


def sources(texts: Iterable[str], root: Path) -> list[str]:
    """The files of the repository outside docs/ that pages link to."""
    found = set()
    for text in texts:
        for _, target in LINK.findall(FENCE.sub("", text)):
            path = re.sub(r"^(\.\./)+", "", target.partition("#")[0])
            if target.startswith("../") and not path.endswith(".md") and (root / path).is_file():
                found.add(path)
    return sorted(f for f in found if not f.startswith("docs/"))


def inside(text: str, page: str, root: Path, project: Mapping[str, str]) -> str:
    """The page's text with every link that leaves docs/ turned to its page of the site."""
    folder = posixpath.dirname(page)

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target.startswith("../"):
            return match[0]
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if path.startswith("docs/"):
            return match[0]
        if path in project:
            place = project[path]
        elif (root / path).is_file():
            place = place_of(path)
        else:
            return match[0]  # mkdocs says that it leads nowhere
        return f"{match[1]}({posixpath.relpath(place, folder or '.')}{anchor and '#' + anchor})"

    return _outside_fences(text, lambda part: LINK.sub(link, part))


def listing(file: Path, name: str) -> str:
    """A page with the text of a source file, with numbered lines to link to."""
    language = LANGUAGES.get(file.suffix, "text")
    text = file.read_text(encoding="utf-8")
    fence = "`" * 6
    head = "---\nsearch:\n  exclude: true\nhide: [toc]\n---\n"
    return f'{head}# {name}\n\n{fence} {{.{language} linenums="1"}}\n{text}{fence}\n'


def script_string(text: str) -> str:
    """Text as a string of a script."""
    return json.dumps(text).replace("</", "<\\/")


def to_lines(html: str, root: Path) -> str:
    """The page with links to source files that name a function or class leading to its line of the listing."""

    def link(match: re.Match[str]) -> str:
        lines = (root / match[2]).read_text(encoding="utf-8").splitlines()
        wanted = re.compile(rf"\s*(?:def|class) {match[3].rpartition('.')[2]}\b")
        number = next((k for k, line in enumerate(lines, 1) if wanted.match(line)), None)
        anchor = f"#__codelineno-0-{number}" if number else ""
        return f'<a href="{match[1]}{anchor}"><code>{match[3]}</code></a>'

    return TO_SOURCE.sub(link, html)


def _outside_fences(text: str, change: object) -> str:
    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else change(part) for part in parts)  # type: ignore[operator]
