"""`reclra-compile`: the command line. Commands only parse, call and print; torch is imported inside them."""

from __future__ import annotations

import click
from click_default_group import DefaultGroup

from reclra_compile import __version__
from reclra_compile.cli.compile_command import compile_
from reclra_compile.cli.train_command import train
from reclra_compile.cli.wiring_commands import check, schema, wirings

EXAMPLES = """\b
Examples:
  reclra-compile examples/mlp_digits.py                       compile with the default wiring, depth2
  reclra-compile model.py --wiring depth1 --graph errors.html see the error pathways
  reclra-compile model.py:net --wiring my.yaml --out my.plan  write the plan as text
  reclra-compile train model.py --wiring depth2 --compare backprop
  reclra-compile wirings                                      the wirings that come with the package
  reclra-compile check my.yaml model.py                       every fault of a wiring file at once

\b
MODEL is path/to/model.py, path/to/model.py:attribute or package.module:attribute.
The file defines `model` (a torch.nn.Module) or `build_model()`, and `example_inputs`
(a tensor or a tuple of tensors, batch first) or `example_inputs()`.
Loading it runs the file, as `python model.py` would.
"""

@click.group(
    cls=DefaultGroup,
    default="compile",
    default_if_no_args=False,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="reclra-compile")
def main() -> None:
    """Compile a PyTorch model and a wiring of error pathways into an executable schedule."""


for _command in (compile_, train, check, wirings, schema):
    main.add_command(_command)

if __name__ == "__main__":
    main()
