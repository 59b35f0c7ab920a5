"""`python -m reclra_compile.run PLAN MODEL`: what each rank runs that a launcher starts."""

import atexit

from reclra_compile.cli.run_command import run
from reclra_compile.distributed.report import end
from reclra_compile.distributed.word import begin


def main() -> None:
    """Run the command, and end the process without taking the interpreter apart.

    Threads of torch's transports may still drop the last reference to a tensor then. They need the interpreter for it,
    and abort the process where there is none left. What is registered with `atexit` is called all the same.
    """
    status = [1]
    atexit.register(lambda: end(status[0]))  # the first to be registered is the last to be called
    begin()
    try:
        run(prog_name="python -m reclra_compile.run")
        status[0] = 0
    except SystemExit as stop:
        status[0] = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise


if __name__ == "__main__":
    main()
