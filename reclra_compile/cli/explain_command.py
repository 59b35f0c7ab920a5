"""`reclra-compile explain CODE`: what an error or a warning means, and how it is repaired."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from reclra_compile.cli.errors import reports_errors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from reclra_compile.explain.entries import Entry, Group


@click.command(short_help="Say what the CODE of an error or a warning means, and the fix.")
@click.argument("codes", nargs=-1, metavar="[CODE]...")
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
@reports_errors
def explain(codes: tuple[str, ...], as_json: bool) -> str | None:
    """Say what the CODE of an error or a warning means: the cause, an example, the fix, and where the docs say more.

    Without a CODE all are listed; a letter alone lists those of a group with all they say, and W1 those
    that begin so.

    \b
    reclra-compile explain W003
    reclra-compile explain w027 t010
    reclra-compile explain            all codes, by group
    reclra-compile explain G          all that `diagnose` may warn of
    """
    from reclra_compile.cli.report import print_report
    from reclra_compile.explain.entries import explained, groups

    if not codes:
        if as_json:
            return json.dumps([asdict(g) for g in groups()], indent=2, ensure_ascii=False)
        print_report(lambda out: _list(out, groups()))
        return None
    found = explained(codes)
    if as_json:
        return json.dumps([asdict(e) for e in found], indent=2, ensure_ascii=False)

    def draw(out: Console) -> None:
        for k, entry in enumerate(found):
            if k:
                out.print()
            _draw(out, entry)

    print_report(draw)
    return None


def _list(out: Console, found: tuple[Group, ...]) -> None:
    """One line for each code, below a heading for each letter."""
    from rich.text import Text

    for group in found:
        out.print(Text.assemble((f"{group.letter}  {group.title}", "bold")))
        if group.about:
            out.print(Text(group.about, "dim"))
        for entry in group.entries:
            line = Text.assemble((f"  {entry.code}  ", "bold cyan"), _marked(entry.title))
            if out.is_terminal:
                out.print(line, no_wrap=True, overflow="ellipsis")
            else:
                out.print(line, soft_wrap=True)
        out.print()
    out.print(Text("reclra-compile explain CODE says more"))


def _draw(out: Console, entry: Entry) -> None:
    """The explanation of one code."""
    from rich.padding import Padding
    from rich.text import Text

    out.print(Text.assemble((entry.code, "bold red"), ("  ", ""), _marked(entry.title)))
    out.print()
    out.print(_marked(entry.cause))
    if entry.example:
        out.print()
        out.print(Padding(Text(entry.example, "dim"), (0, 0, 0, 4)))
    out.print()
    out.print(Text.assemble(("fix: ", "green"), _marked(entry.fix)))
    out.print(Text.assemble(("docs: ", "green"), f"docs/{entry.page}"))


def _marked(text: str) -> Text:
    """Text in which `code` stands out."""
    from rich.text import Text

    made = Text(text)
    made.highlight_regex(r"`[^`]+`", "cyan")
    return made
