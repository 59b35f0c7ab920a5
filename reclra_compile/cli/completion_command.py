"""`reclra-compile completion SHELL`: the script that makes Tab complete in a shell."""

from __future__ import annotations

import click

from reclra_compile.cli.shells import SHELLS

PROGRAM = "reclra-compile"
VARIABLE = "_RECLRA_COMPILE_COMPLETE"


@click.command(short_help="Print the script that completes commands in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes the Tab key complete commands, options, models, wirings and codes in SHELL.

    \b
    For one session:
      eval "$(reclra-compile completion bash)"        bash
      source <(reclra-compile completion zsh)         zsh, after compinit
      reclra-compile completion fish | source         fish
    For all, put that line into ~/.bashrc or ~/.zshrc; fish reads
      ~/.config/fish/completions/reclra-compile.fish
    """
    group = ctx.find_root().command
    click.echo(SHELLS[shell](group, {}, PROGRAM, VARIABLE).source(), nl=False)
