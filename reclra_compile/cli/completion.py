"""What can stand where on a command line, for completion in a shell: models, wirings, data sets, codes.

Parameters are known by their names, so that every command that takes a MODEL or a --wiring completes them. Nothing that
is completed runs the user's code: names in a model file are read from its text.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    Items: TypeAlias = list[CompletionItem[str]]
    TextType: TypeAlias = click.ParamType[str]
else:  # not generic in click 8.1
    TextType = click.ParamType

OPEN = "open"  #: the type of an item after which no blank is to follow: a folder, a word that ends in =
NOT_MODELS = {"example_inputs", "data", "loss_fn"}
MOST_BYTES = 1 << 20  #: a larger file is not read for its names


class Completed(TextType):
    """A text whose completions come from a function of what is typed so far."""

    name = "text"

    def __init__(self, complete: Callable[[str], Items]) -> None:
        self.complete = complete

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        """What may stand here."""
        try:
            return self.complete(incomplete)
        except OSError:
            return []


def files(incomplete: str, *suffixes: str) -> Items:
    """Files with one of the suffixes, and folders, that what is typed begins."""
    folder, begun = os.path.split(incomplete)
    found: Items = []
    for entry in sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda e: e.name):
        if not entry.name.startswith(begun) or (entry.name.startswith((".", "__")) and not begun):
            continue
        if entry.is_dir():
            found.append(CompletionItem(os.path.join(folder, entry.name, ""), type=OPEN))
        elif entry.name.endswith(suffixes):
            found.append(CompletionItem(os.path.join(folder, entry.name)))
    return found


def models(incomplete: str) -> Items:
    """Python files and, after a colon, what in the file may be a model: its text is read, nothing is run."""
    file, colon, begun = incomplete.partition(":")
    if not colon:
        return files(incomplete, ".py")
    path = Path(file).expanduser()
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return []
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return []
    names = [n for n in dict.fromkeys(n for s in body for n in _defined(s)) if n.startswith(begun)]
    return [CompletionItem(f"{file}:{n}") for n in names if not n.startswith("_") and n not in NOT_MODELS]


def _defined(statement: ast.stmt) -> Iterable[str]:
    """Names that a statement at the top of a file gives to models, or to what makes them."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        returns = getattr(statement, "returns", None)
        if not (isinstance(returns, ast.Constant) and returns.value is None):  # it gives nothing, so no model
            yield statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    for target in targets:
        if isinstance(target, ast.Name) and not target.id.isupper():
            yield target.id


def wirings(incomplete: str) -> Items:
    """Shipped names with what they are, and YAML files."""
    from reclra_compile.spec.load import shipped

    named = [CompletionItem(n) for n in shipped() if n.startswith(incomplete)]
    return [*named, *files(incomplete, ".yaml", ".yml")]


def data_sets(incomplete: str) -> Items:
    """Names that --data takes."""
    from reclra_compile.data.sets import NAMES

    return [CompletionItem(n) for n in NAMES if n.startswith(incomplete)]


def codes(incomplete: str) -> Items:
    """Codes of errors and warnings, with their meanings."""
    from reclra_compile.explain.entries import groups

    entries = (e for g in groups() for e in g.entries)
    return [CompletionItem(e.code, help=e.title) for e in entries if e.code.startswith(incomplete.upper())]


def words(*valid: str) -> Callable[[str], Items]:
    """A completion of fixed words."""

    def complete(incomplete: str) -> Items:
        begun = (w for w in valid if w.startswith(incomplete))
        return [CompletionItem(w, type=OPEN if w.endswith("=") else "plain") for w in begun]

    return complete


def profiles(incomplete: str) -> Items:
    """Device profiles, and files of them."""
    return [*words("cpu", "a100", "h100", "h200", "any", "measured")(incomplete), *files(incomplete, ".yaml", ".json")]


def rivals(incomplete: str) -> Items:
    """Schedules that `simulate --compare` takes, after commas too."""
    from reclra_compile.simulate.compare import GROUPS, TITLES

    before, comma, begun = incomplete.rpartition(",")
    return [CompletionItem(before + comma + n) for n in (*TITLES, *GROUPS, "all") if n.startswith(begun)]


def tables(incomplete: str) -> Items:
    """The paper's tables, and table files."""
    return [*words("table1", "table2a", "table2b", "table3", "figure2")(incomplete), *files(incomplete, ".yaml")]


#: name of a parameter → its completion, where it has none of its own; (command, name) goes before
BY_NAME: dict[str | tuple[str, str], Callable[[str], Items]] = {
    "model": models,
    "wiring": wirings,
    "compare": wirings,
    "beside": wirings,
    ("simulate", "compare"): rivals,
    ("report", "run"): files,  # no suffix: folders alone
    "data_dir": files,
    "data": data_sets,
    "codes": codes,
    "table": tables,
    "device_profile": profiles,
    "granularity": words("layer", "block", "groups="),
    "device": words("cpu", "cuda", "cuda:0", "mps"),
}


def complete_by_name(group: click.Group) -> None:
    """Give the text parameters of all commands in `group` the completions of `BY_NAME`."""
    for name, command in group.commands.items():
        for param in command.params:
            known = BY_NAME.get((name, str(param.name)), BY_NAME.get(str(param.name)))
            if known is not None and isinstance(param.type, click.types.StringParamType):
                param.type = Completed(known)
