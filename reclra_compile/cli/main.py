"""`reclra-compile`: the command line. Commands only parse, call and print; torch is imported inside them."""

from __future__ import annotations

import io
import os
import sys

import click
from click_default_group import DefaultGroup

from reclra_compile import __version__
from reclra_compile.cli.compile_command import compile_
from reclra_compile.cli.diagnose_command import diagnose
from reclra_compile.cli.graph_command import graph
from reclra_compile.cli.profile_command import profile
from reclra_compile.cli.regions_command import regions
from reclra_compile.cli.reproduce_command import reproduce
from reclra_compile.cli.search_command import search
from reclra_compile.cli.simulate_command import simulate
from reclra_compile.cli.train_command import train
from reclra_compile.cli.wiring_commands import check, schema, wirings
from reclra_compile.errors import nearest

EXAMPLES = """\b
Examples:
  reclra-compile examples/mlp_digits.py          regions, pathways, waves and cost
  reclra-compile model.py -w depth1 -g out.html  with another wiring, drawn
  reclra-compile model.py:net -w my.yaml -o net.plan
  reclra-compile graph model.py -w depth1        the error pathways, drawn in the terminal
  reclra-compile train model.py --compare backprop
  reclra-compile regions model.py --granularity block
  reclra-compile diagnose model.py -w depth1     what hinders it from learning
  reclra-compile profile model.py -w depth1      what its regions take on this machine
  reclra-compile wirings                         what can follow --wiring
  reclra-compile check my.yaml model.py          every fault of a wiring at once
  reclra-compile train --help                    data, settings, seeds, resuming

\b
MODEL is path/to/model.py, path/to/model.py:attribute or package.module:attribute.
The file defines `model` (a torch.nn.Module) or `build_model()`, and
`example_inputs` (a tensor or a tuple of tensors, batch first) or
`example_inputs()`. It is run, as when it is imported.
"""


class Commands(DefaultGroup):  # type: ignore[misc]
    """The commands; anything else is a MODEL to compile, unless it looks like a misspelt command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with; raises UsageError for a misspelt one."""
        word = args[0]
        near = nearest(word, list(self.commands))
        if word not in self.commands and word.isidentifier() and near.startswith("did you mean") and not _exists(word):
            ctx.fail(f"there is no command '{word}'; {near} (a model is path/to/model.py or package.module:attribute)")
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, rest


def _exists(word: str) -> bool:
    """True for a module or package in the current folder, or a file of this name."""
    return any(os.path.isfile(place) for place in (word, f"{word}.py", os.path.join(word, "__init__.py")))


@click.group(
    cls=Commands,
    default="compile",
    default_if_no_args=False,
    no_args_is_help=False,
    invoke_without_command=True,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="reclra-compile")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Compile a PyTorch model and a wiring of error pathways into an executable schedule.

    Without a command, MODEL is compiled.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without φ shows ?, and goes on
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (compile_, train, graph, diagnose, regions, profile, check, wirings, schema, reproduce, search,
                 simulate):  # fmt: skip
    main.add_command(_command)

if __name__ == "__main__":
    main()
