"""How commands end on a user's mistake: a report and status 2, never a traceback."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

import click

from reclra_compile.errors import Fault, ReclraError, UserError

F = TypeVar("F", bound=Callable[..., Any])
INTERRUPTED = 130  #: what shells expect of a program that Ctrl-C ended


class Interrupted(Exception):
    """Ctrl-C or another signal, with one line that says what is kept."""

    def __init__(self, kept: str, status: int = INTERRUPTED) -> None:
        super().__init__(kept)
        self.status = status


def status_of(stop: BaseException) -> int:
    """The exit status of what ends at a signal, by default at Ctrl-C."""
    return int(getattr(stop, "status", INTERRUPTED))


def reports_errors(command: F) -> F:
    """Print a user's mistake as a report on standard error and exit with status 2: never a traceback.

    With `--json` a command returns its report, which goes to standard output, as do errors, as
    {"errors": […]}; what the user's own code prints goes to standard error.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        as_json = bool(kwargs.get("as_json"))
        try:
            with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
                report = command(*args, **kwargs)
        except ReclraError as error:
            print_faults(error, as_json)
            sys.exit(2)
        except (KeyboardInterrupt, Interrupted) as stop:
            click.echo(f"interrupted{f': {stop}' if str(stop) else ''}", err=True)
            sys.exit(status_of(stop))
        if report is not None:
            click.echo(report)

    return wrapped  # type: ignore[return-value]


def print_faults(error: ReclraError, as_json: bool) -> None:
    """Report an error for people on standard error, or as JSON on standard output."""
    if as_json:
        from reclra_compile.cli.json_report import errors_json

        click.echo(errors_json(error))
    else:
        from reclra_compile.cli.report import print_errors

        print_errors(error)


class UsageFault(click.UsageError):
    """A command line that cannot be understood, shown as all errors are: with a code, and as JSON with `--json`."""

    def __init__(self, error: click.UsageError, as_json: bool) -> None:
        super().__init__(error.format_message(), error.ctx)
        self.as_json = as_json

    def show(self, file: IO[Any] | None = None) -> None:
        """Print how the command is used, and the fault."""
        if not self.as_json and self.ctx is not None:
            click.echo(self.ctx.get_usage(), file=file, err=True)
        name = self.ctx.command_path if self.ctx is not None else "reclra-compile"
        print_faults(UserError(Fault("I003", self.message, fix=f"`{name} --help` says what it takes")), self.as_json)


@contextlib.contextmanager
def coded_usage(as_json: bool) -> Iterator[None]:
    """Inside, click's usage errors become faults with a code; their exit status is 2, as before."""
    try:
        yield
    except UsageFault:
        raise
    except click.UsageError as error:
        raise UsageFault(error, as_json) from error


class Faults:
    """Collects the faults of steps that do not need each other, so that one report holds them all."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Inside, an error ends the block and is kept."""
        try:
            yield
        except ReclraError as error:
            self.found += [f for f in error.faults if f not in self.found]

    def report(self) -> None:
        """Raise UserError where there are faults."""
        if self.found:
            raise UserError(self.found)
