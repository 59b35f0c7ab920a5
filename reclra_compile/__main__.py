"""`python -m reclra_compile` is `reclra-compile`."""

from reclra_compile.cli.main import main

main(prog_name="reclra-compile")
