"""`python -m reclra_compile.run PLAN MODEL`: what each rank runs that a launcher starts."""

from reclra_compile.cli.run_command import run
from reclra_compile.distributed.word import begin

if __name__ == "__main__":
    begin()
    run(prog_name="python -m reclra_compile.run")
