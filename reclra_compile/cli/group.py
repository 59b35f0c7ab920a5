"""The group of all commands: its help in sections, a default command, and what it completes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click_default_group import DefaultGroup

from reclra_compile.cli.completion import models
from reclra_compile.cli.errors import coded_usage
from reclra_compile.errors import nearest

if TYPE_CHECKING:
    from reclra_compile.cli.completion import Items

DEFAULT = "compile"
JSON = "reclra_compile.json"  #: where a context keeps whether --json is on its command line
SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Wire a model", ("compile", "init", "check", "wirings", "schema")),
    ("See what is there", ("regions", "graph", "explain")),
    ("Train it", ("train", "diagnose", "report")),
    ("On other devices", ("simulate", "profile")),
    ("The paper's tables", ("reproduce", "search")),
    ("Your shell", ("completion",)),
)
FIRST = """\b
Try first:
  reclra-compile examples/mlp_digits.py           who hears whom, what a step costs
  reclra-compile train examples/mlp_digits.py --compare backprop
  reclra-compile init model.py --out my.yaml      a wiring of your own to edit"""


class Commands(DefaultGroup):  # type: ignore[misc]
    """The commands; anything else is a MODEL to compile, unless it looks like a misspelt command."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """As click does; a mistake in the command line is a fault with a code."""
        as_json = "--json" in args
        with coded_usage(as_json):
            made: click.Context = super().make_context(info_name, args, parent, **extra)
        made.meta[JSON] = as_json
        return made

    def invoke(self, ctx: click.Context) -> Any:
        """As click does; a mistake in the command line is a fault with a code."""
        with coded_usage(bool(ctx.meta.get(JSON))):
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with; raises UsageError for a misspelt one."""
        word = args[0]
        near = nearest(word, list(self.commands))
        if word not in self.commands and not ctx.resilient_parsing and _like_a_command(word) and _close(near):
            ctx.fail(f"there is no command '{word}'; {near} (a model is path/to/model.py or package.module:attribute)")
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands in the sections of `SECTIONS`, those that are in none at the end."""
        placed = {n for _, names in SECTIONS for n in names}
        rest = tuple(n for n in self.commands if n not in placed)
        wide = max(map(len, self.commands)) + 2
        limit = formatter.width - 6 - wide
        for title, names in (*SECTIONS, ("More", rest)):
            rows = [
                (name.ljust(wide - 2), self.commands[name].get_short_help_str(limit))
                for name in names
                if name in self.commands and not self.commands[name].hidden
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> Items:
        """Commands; and what may begin a command line without one: models, and options of the default command."""
        found: Items = super().shell_complete(ctx, incomplete)
        default = self.commands[DEFAULT]
        if incomplete.startswith("-"):
            inner = click.Context(default, parent=ctx, info_name=DEFAULT, resilient_parsing=True)
            had = {i.value for i in found}
            return [*found, *(i for i in default.shell_complete(inner, incomplete) if i.value not in had)]
        try:
            return [*found, *models(incomplete)]
        except OSError:
            return found


def _like_a_command(word: str) -> bool:
    """True for a word that is neither a path, nor an option, nor something that Python could import from here."""
    return word.replace("-", "_").isidentifier() and not word.startswith("-") and not _exists(word)


def _close(near: str) -> bool:
    return near.startswith("did you mean")


def _exists(word: str) -> bool:
    """True for a module or package in the current folder, or a file of this name."""
    return any(os.path.isfile(place) for place in (word, f"{word}.py", os.path.join(word, "__init__.py")))
