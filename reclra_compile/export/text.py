"""The code of a step graph as people read it: a comment where a task of the plan begins, gradients one a line."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_STATEMENT = re.compile(r"(\w+)(?:\s*:\s*(?:\"[^\"]*\"|\w+))? = ")
_FREED = re.compile(r";  (?:\w+ = )+None$", re.MULTILINE)


@dataclass(frozen=True)
class Sections:
    """Writes the title of each task before its first statement; `titles` has that of each value, by name."""

    titles: Mapping[str, str]

    def __call__(self, body: list[str]) -> list[str]:
        """The lines of a function's body, as torch.fx gives and takes them."""
        lines: list[str] = []
        now = ""
        for line in body:
            found = _STATEMENT.match(line)
            title = self.titles.get(found.group(1), now) if found else now
            if title != now:
                at = len(lines) - 1 if lines and lines[-1].startswith("# COUNTER") else len(lines)
                lines.insert(at, f"\n# {title}\n")
                now = title
            lines.append(_listed(line) if line.startswith("return ") else line)
        return lines

    def after(self, before: Callable[[list[str]], list[str]] | None) -> Callable[[list[str]], list[str]]:
        """This after a transformation that is there already."""
        return self if before is None else lambda body: self(before(body))


def _listed(line: str) -> str:
    """A return statement with one gradient a line, where that is the same statement."""
    listed = line.replace("{'", "{\n    '").replace(", '", ",\n    '").replace("})", "\n})")
    try:
        same = ast.dump(ast.parse(listed)) == ast.dump(ast.parse(line))
    except SyntaxError:
        return line
    return "\n" + listed if same else line


def without_frees(code: str) -> str:
    """The code without the parts that only free memory."""
    return "\n".join(line.rstrip() for line in _FREED.sub("", code).splitlines()).strip("\n")
