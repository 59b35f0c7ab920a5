"""How commands end on a user's mistake: a report and status 2, never a traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from reclra_compile.errors import ReclraError

F = TypeVar("F", bound=Callable[..., Any])


def reports_errors(command: F) -> F:
    """Print a user's mistake as a report on standard error and exit with status 2: never a traceback.

    With `--json` the report goes to standard output as {"errors": […]}.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ReclraError as error:
            if kwargs.get("as_json"):
                from reclra_compile.cli.json_report import errors_json

                click.echo(errors_json(error))
            else:
                from reclra_compile.cli.report import print_errors

                print_errors(error)
            sys.exit(2)

    return wrapped  # type: ignore[return-value]
