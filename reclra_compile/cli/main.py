"""`reclra-compile`: the command line. Commands only parse, call and print; torch is imported inside them."""

from __future__ import annotations

import io
import sys

import click

from reclra_compile import __version__
from reclra_compile.cli.compile_command import compile_
from reclra_compile.cli.completion import complete_by_name
from reclra_compile.cli.completion_command import completion
from reclra_compile.cli.diagnose_command import diagnose
from reclra_compile.cli.explain_command import explain
from reclra_compile.cli.graph_command import graph
from reclra_compile.cli.group import DEFAULT, FIRST, Commands
from reclra_compile.cli.init_command import init
from reclra_compile.cli.profile_command import profile
from reclra_compile.cli.regions_command import regions
from reclra_compile.cli.report_run_command import report_run
from reclra_compile.cli.reproduce_command import reproduce
from reclra_compile.cli.search_command import search
from reclra_compile.cli.simulate_command import simulate
from reclra_compile.cli.train_command import train
from reclra_compile.cli.wiring_commands import check, schema, wirings

EXAMPLES = f"""{FIRST}

\b
More examples:
  reclra-compile model.py -w depth1 -g out.html   with another wiring, drawn
  reclra-compile model.py:net -w my.yaml -o net.plan
  reclra-compile graph model.py -w depth1         error pathways, drawn in the terminal
  reclra-compile check my.yaml model.py           every fault of a wiring at once
  reclra-compile diagnose model.py -w depth1      what hinders it from learning
  reclra-compile model.py -w depth1 --devices h100:4 -o four.plan
  reclra-compile simulate four.plan --compare all
  reclra-compile explain W027                     what an error means, and the fix
  reclra-compile train --help                     data, settings, seeds, resuming

\b
MODEL is path/to/model.py, path/to/model.py:attribute or package.module:attribute.
The file defines `model` (a torch.nn.Module) or `build_model()`, and
`example_inputs` (a tensor or a tuple of tensors, batch first) or
`example_inputs()`. It is run, as when it is imported.
"""


@click.group(
    cls=Commands,
    default=DEFAULT,
    default_if_no_args=False,
    no_args_is_help=False,
    invoke_without_command=True,
    epilog=EXAMPLES,
    subcommand_metavar="[COMMAND] MODEL [OPTIONS]...",
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


for _command in (
    compile_, init, train, graph, diagnose, regions, profile, check, wirings, schema, reproduce, search, simulate,
    explain, completion, report_run,
):  # fmt: skip
    main.add_command(_command)
complete_by_name(main)

if __name__ == "__main__":
    main()
