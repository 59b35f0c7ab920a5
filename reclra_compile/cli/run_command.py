"""`python -m reclra_compile.run PLAN MODEL`: train as one of the ranks that a launcher started."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from reclra_compile.cli.errors import coded_usage, print_faults
from reclra_compile.cli.options import output_option, unreached_option
from reclra_compile.cli.train_options import data_options, rank_timeout_option, run_options, settings_options
from reclra_compile.errors import ReclraError

if TYPE_CHECKING:
    from reclra_compile.cli.rank_view import RankView
    from reclra_compile.distributed.heartbeat import Heartbeat
    from reclra_compile.distributed.mesh import Mesh
    from reclra_compile.ir import Plan

#: of train's options, those that a plan has answered
ANSWERED: dict[str, Any] = {
    "wiring": None, "compare": (), "granularity": None, "devices": None, "device_profile": None, "device_memory": None,
    "microbatches": None, "staleness": None, "pins": (), "auto": False, "depth": None, "bottlenecks": None,
    "synapse_memory": None, "groups": None,
}  # fmt: skip
TORCHRUN = "start it with `torchrun --nproc-per-node {n} -m reclra_compile.run {plan} {model} …`"


class RankCommand(click.Command):
    """A command whose usage errors are printed by one rank, as all of them get the same line."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """As click does; a mistake in the command line is a fault with a code."""
        with coded_usage("--json" in args):
            return super().make_context(info_name, args, parent, **extra)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; ranks but the first print nothing on standard output."""
        if _rank() == 0:
            return super().main(*args, **kwargs)
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            sys.exit(error.exit_code)


@click.command(cls=RankCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("plan")
@click.argument("model")
@data_options
@output_option
@unreached_option
@settings_options
@run_options
@click.option("--threads", type=click.IntRange(min=1), metavar="N",
              help="CPU threads of each process  [default: torch's; torchrun sets OMP_NUM_THREADS=1]")  # fmt: skip
@click.option("--device", metavar="TYPE", help="cpu or cuda  [default: what PLAN's devices are]")
@rank_timeout_option
@click.option("--label", hidden=True)
def run(**options: Any) -> None:
    """Train MODEL with PLAN as one of the processes that a launcher starts.

    PLAN is a file that `reclra-compile MODEL --devices P --out PLAN` wrote. It takes P processes, or R × P for R
    replicas that see different samples; each holds the layers of one device.

    \b
    reclra-compile model.py --devices cpu:4 --microbatches 8 --out four.plan
    torchrun --nproc-per-node 4 -m reclra_compile.run four.plan model.py --run-dir runs

    On several hosts, here two with eight GPUs each, with the same files in the same places; on each host:

    \b
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d \\
        --rdzv-endpoint HOST1:29500 --rdzv-id JOB --max-restarts 3 \\
        -m reclra_compile.run sixteen.plan model.py --run-dir SHARED/runs

    Any launcher does that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Ranks that are started
    again go on from the last checkpoint in --run-dir. Rank 0 prints; a mistake is printed once. Settings marked * are
    PLAN's where they are not given.

    On one host, `reclra-compile train MODEL --devices cpu:4` does all of this.

    Exit status: 0; 2 for a mistake, or where a rank is lost.
    """
    from reclra_compile.distributed import report, word

    rank = _rank()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a rank that waits in torch would not hear of Ctrl-C
    if rank:
        warnings.simplefilter("ignore")  # rank 0 has the same
    place, show = Place(rank), partial(print_faults, as_json=options["as_json"])
    try:
        result = _run(options, place)
    except ReclraError as error:
        if place.mesh is not None and place.heartbeat is not None:
            error = report.located(error, place.heartbeat.seen, rank, place.mesh.count)
        if place.view is not None and word.folder() is None:  # the launcher of this package says it itself
            error = report.with_kept(error, place.view.kept)
        report.report(error, rank, place.plan, place.store, show)
        report.end(2)
    except (Exception, SystemExit) as error:  # the user's code may end the process
        text = traceback.format_exc()
        report.report(report.unexpected(error), rank, place.plan, place.store, show, text)
        report.end(2)
    if result is not None:
        click.echo(result)


class Place:
    """What is known of this process among the others, as far as it has come."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.plan: Plan | None = None
        self.mesh: Mesh | None = None
        self.heartbeat: Heartbeat | None = None
        self.view: RankView | None = None

    @property
    def store(self) -> Any:
        """The mesh's store; None before there is one."""
        return self.mesh.store if self.mesh else None


def _rank() -> int:
    try:
        return int(os.environ.get("RANK", "0"))
    except ValueError:
        return 0


def _run(options: dict[str, Any], place: Place) -> str | None:
    import torch

    from reclra_compile.cli.plan_file import read_plan
    from reclra_compile.distributed import word
    from reclra_compile.distributed.devices import device_type
    from reclra_compile.distributed.heartbeat import Heartbeat
    from reclra_compile.distributed.mesh import connect

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    plan = read_plan(options["plan"])
    _launched(options, len(plan.devices))
    place.plan = plan
    mesh = connect(len(plan.devices), device_type(plan, options["device"]), options["rank_timeout"])
    place.mesh = mesh
    heartbeat = place.heartbeat = Heartbeat(mesh.store, mesh.rank)
    heartbeat.start()
    with _outer(place.rank, options["as_json"]):
        result = _trained(options, mesh, heartbeat, place)
    mesh.barrier()  # nobody leaves while another one still writes
    heartbeat.stop()
    mesh.close()
    return result if word.folder() is None else None


def _trained(options: dict[str, Any], mesh: Mesh, heartbeat: Heartbeat, place: Place) -> str | None:
    from dataclasses import replace

    from reclra_compile.cli import launches
    from reclra_compile.cli.rank_view import EventView, RankView
    from reclra_compile.cli.trace_view import TraceFile, traced
    from reclra_compile.cli.train_setup import set_up
    from reclra_compile.cli.training_records import Records
    from reclra_compile.cli.training_results import results_json
    from reclra_compile.cli.training_view import TrainingView
    from reclra_compile.distributed import word
    from reclra_compile.distributed.handshake import agree, data_of, facts_of
    from reclra_compile.train.loop import with_flags

    again = any(int(n) for n in mesh.gather(str(word.attempt())))  # each host counts its own restarts
    setup = set_up({**ANSWERED, **options, "device": str(mesh.device), "again": again}, rank=True)
    job, plan = replace(setup.job, mesh=mesh), next(iter(setup.plans.values()))
    rest = {
        "data": data_of(job.data), "training samples": job.data.count("train"), "test samples": job.data.count("test"),
        **{name: options[name] for name in ("seed", "seeds", "init", "checkpoint_every", "log_every", "validation",
                                            "preprocess", "output", "unreached", "top5", "trace", "trace_steps")},
        "augment": job.augment, "resume": job.resume,
    }  # fmt: skip
    agree(mesh, facts_of(plan, setup.loaded, with_flags(plan.training, **job.flags), rest))
    for member in setup.members:
        if member.folder is not None and not mesh.rank:
            launches.mark(member.folder)
    results = []
    folder = word.folder()
    if folder or mesh.rank:
        events = EventView(word.Events(folder / word.EVENTS)) if folder and not mesh.rank else None
        place.view = RankView(heartbeat, events, options["log_every"])
        for member in setup.members:
            job.run(member, traced(place.view, member, setup.members, options))
        return None
    records = Records(setup, options, lambda plan: mesh.count)
    trace = TraceFile(options["trace"])
    view = TrainingView(setup, options["as_json"], records)
    view.warn()
    with view:
        place.view = RankView(heartbeat, view, options["log_every"])
        for member in setup.members:
            results.append(job.run(member, traced(place.view, member, setup.members, options)))
    if options["as_json"]:
        return results_json(setup, results)
    view.summary(results)
    view.files({"log": options["log"], "TensorBoard": options["tensorboard"], "checkpoints": options["run_dir"],
                "trace": trace.said(plan)})  # fmt: skip
    return None


def _launched(options: dict[str, Any], devices: int) -> None:
    """Raise RankError (R101) where no launcher has said which rank this is, or something that cannot be."""
    from reclra_compile.distributed.variables import check_variables

    check_variables(TORCHRUN.format(n=devices, plan=options["plan"], model=options["model"]))


@contextlib.contextmanager
def _outer(rank: int, as_json: bool) -> Iterator[None]:
    """What the user's code prints: of rank 0 alone, and not between results that are JSON."""
    with contextlib.redirect_stdout(sys.stderr if as_json and not rank else sys.stdout):
        yield

