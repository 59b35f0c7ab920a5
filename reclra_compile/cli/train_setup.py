"""What a `train` command line asks for: everything is checked before anything is trained."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reclra_compile.cli import launches
from reclra_compile.cli.auto_options import auto_wiring
from reclra_compile.cli.errors import Faults
from reclra_compile.cli.options import machine_of
from reclra_compile.cli.plan_file import read_plan
from reclra_compile.cli.report import console
from reclra_compile.compiler import compile, plan_for
from reclra_compile.data.faults import problem
from reclra_compile.data.imagefolder import ImageFolder, image_folder
from reclra_compile.data.own import OwnData
from reclra_compile.data.preprocess import preprocessed
from reclra_compile.data.sets import DataSet, load
from reclra_compile.errors import Fault, Location, PlanError, TrainingError
from reclra_compile.frontend.example import example_of
from reclra_compile.frontend.load_model import Loaded, load_model
from reclra_compile.ir import Plan
from reclra_compile.planning import WiringSource
from reclra_compile.spec.load import Loaded as LoadedWiring
from reclra_compile.spec.load import load_wiring
from reclra_compile.train.brought import brought_data, brought_loss
from reclra_compile.train.checkpoint import checkpoint_of
from reclra_compile.train.job import Job, Member
from reclra_compile.train.loop import warmup_share, with_flags
from reclra_compile.train.trial import measure_on

Data = DataSet | OwnData | ImageFolder

#: with fewer classes the top-5 error says little; with more it is reported unasked
FEWEST_FOR_TOP5, USUAL_FOR_TOP5 = 10, 100
#: threads that decode images where --workers does not say how many
MOST_WORKERS = 16

SETTINGS = (
    "epochs", "batch_size", "lr", "readout_rate", "inverse_rate", "mirror_rate", "optimizer", "beta2", "weight_decay",
    "schedule", "warmup", "lr_end", "power", "clip",
)  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """A job, its runs in order, the plan of each wiring by label, and the model as it was loaded to check them."""

    job: Job
    members: tuple[Member, ...]
    plans: dict[str, Plan]
    loaded: Loaded


def set_up(options: dict[str, Any], rank: bool = False) -> Setup:
    """The job that the options describe; raises ReclraError with every fault that can be found beforehand.

    `rank`: this process runs a part of a plan, which it checks as it compiles that part.
    """
    faults = Faults()
    data: Data
    if options["data"]:  # otherwise the model's file says first whether it has data of its own
        with faults.collected():
            read = image_folder if options["data"] == "imagefolder" else partial(load, options["data"])
            data = read(options["data_dir"], validation=options["validation"])
    with faults.collected():
        check_device(options["device"] or "cpu")
    members: tuple[Member, ...] = ()
    with faults.collected():
        members = _members(options, _first(options))
    of_model = Faults()
    with of_model.collected():  # before the wirings: the file may register rules that they name
        # no process holds the whole model where each draws its own part
        meta = torch.device("meta") if options["init"] == "regions" else None
        loaded = load_model(options["model"], building=meta)
    for wiring in dict.fromkeys(m.wiring for m in members if isinstance(m.wiring, str)):
        with faults.collected():
            load_wiring(wiring)
    faults.found += of_model.found
    faults.report()
    if not options["data"]:
        with faults.collected():
            data = _own_or_digits(loaded, options)
    with faults.collected():
        loss_fn = brought_loss(loaded)
    with faults.collected():
        machine = machine_of(options)
    faults.report()
    flags = {name: options[name] for name in SETTINGS}
    if rank and not options["again"]:
        for member in members:
            if member.folder is not None:
                launches.forget(member.folder)
    job = Job(
        options["model"], data, flags, _resumes(options, members), options["device"] or "cpu",
        granularity=options["granularity"], output=options["output"], unreached=options["unreached"],
        augment=options["augment"] or ("resized_crop_flip" if isinstance(data, ImageFolder) else "none"),
        machine=machine, init=options["init"], checkpoint_every=options["checkpoint_every"],
    )  # fmt: skip
    plans: dict[str, Plan] = {}
    for member in {m.label: m for m in members}.values():
        with faults.collected():
            given = member.plan if rank else None
            plans[member.label] = given or _plan(member, loaded, job, options["plan"])
    with faults.collected():
        for plan in list(plans.values())[:1]:
            job.fits(plan, loaded)
            job.reaches(plan)
            job = replace(job, measure=measure_on(loaded, data, loss_fn, job.output))
            job = replace(job, top5=_wants_top5(options["top5"], job))
    with faults.collected():
        data = _treated(data, job, options)
    with faults.collected():
        job.augmentation(example_of(loaded.model, loaded.inputs))
    with faults.collected():
        job.may_start(members)
    with faults.collected():
        _check_resume(options, members)
    faults.report()
    job = _same_budget(job, plans[members[0].label])
    for plan in plans.values():
        with faults.collected():
            warmup_share(with_flags(plan.training, **job.flags))
    faults.report()
    if isinstance(data, DataSet) and options["preprocess"] != "none":
        with console(stderr=True).status(f"preprocessing ({options['preprocess']})"):
            data = preprocessed(data, options["preprocess"])  # last, as whitening takes its time
    return Setup(replace(job, data=data), members, plans, loaded)


def _treated(data: Data, job: Job, options: dict[str, Any]) -> Data:
    """The data with what is done to images as they are decoded; raises DataError (D015) for what cannot be done."""
    kind, workers = options["preprocess"], options["workers"]
    if isinstance(data, ImageFolder):
        return data.treated(kind, job.augment, workers or min(os.cpu_count() or 1, MOST_WORKERS))
    if workers:
        raise problem("D015", f"--workers {workers} is for --data imagefolder: all other images are in memory",
                      "leave --workers out")  # fmt: skip
    if kind != "none" and isinstance(data, OwnData):
        raise problem("D015", f"--preprocess {kind} is for the data sets of images that --data names",
                      "preprocess the tensors where the model's file makes them, or name a data set with --data")
    return data


def _wants_top5(asked: bool, job: Job) -> bool:
    """Whether the top-5 error is measured: where it is asked for, or usual."""
    if asked and (job.measure == "loss" or 0 < job.data.classes < FEWEST_FOR_TOP5):
        found = "the targets are not classes" if job.measure == "loss" else f"there are {job.data.classes} classes"
        raise problem("D016", f"--top5 needs {FEWEST_FOR_TOP5} classes or more; {found}", "leave --top5 out")
    return asked or job.data.classes >= USUAL_FOR_TOP5


def _own_or_digits(loaded: Loaded, options: dict[str, Any]) -> Data:
    """The data that the model's file brings, made once and kept for all runs; the digits where it brings none."""
    own = brought_data(loaded, options["validation"])
    return own or load("digits", options["data_dir"], validation=options["validation"])


def _plan(member: Member, loaded: Loaded, job: Job, file: str | None) -> Plan:
    if member.plan is None:
        with loaded.blamed():
            return plan_for(
                loaded.model, loaded.inputs, member.wiring or "depth2", granularity=job.granularity, output=job.output,
                unreached=job.unreached, machine=job.machine,
            )  # fmt: skip
    try:
        if job.machine.asked:
            raise PlanError(Fault("P012", "a plan says itself what devices and microbatches it is for",
                                  fix="leave --devices, --microbatches and the like out, or plan anew with "
                                  "`reclra-compile MODEL --out PLAN`"))  # fmt: skip
        return compile(loaded.model, loaded.inputs, plan=member.plan, output=job.output).plan
    except PlanError as error:
        where = Location(str(file))
        raise PlanError(replace(f, where=f.where or where) for f in error.faults) from error


def _same_budget(job: Job, first: Plan) -> Job:
    """All runs get the first wiring's epochs and batch size, so that they see the same data."""
    settings = with_flags(first.training, **job.flags)
    return replace(job, flags={**job.flags, "epochs": settings.epochs, "batch_size": settings.batch_size})


def _resumes(options: dict[str, Any], members: tuple[Member, ...]) -> bool:
    """Whether runs go on from their checkpoints: where it is asked for, and those of ranks that are started again."""
    if options["resume"] or not options.get("again"):
        return bool(options["resume"])
    return any(m.folder and launches.marked(m.folder) and checkpoint_of(m.folder).exists() for m in members)


def _check_resume(options: dict[str, Any], members: tuple[Member, ...]) -> None:
    if not options["resume"]:
        return
    if not options["run_dir"]:
        raise TrainingError(Fault("T022", "--resume needs --run-dir", fix="say where the checkpoints are"))
    places = [checkpoint_of(m.folder) for m in members if m.folder]
    if not any(place.exists() for place in places):
        raise TrainingError(
            Fault("T020", "there is no checkpoint to resume", Location(str(places[0])),
                  "run without --resume, or name the --run-dir and wiring of an earlier run")
        )


def _first(options: dict[str, Any]) -> str | LoadedWiring | None:
    """The wiring that is asked for by name, or by what the compiler is to choose; None where none is."""
    given = options["wiring"]
    asked = auto_wiring(options, given or "depth2", given is not None)
    return given if isinstance(asked, str) else asked


def _members(options: dict[str, Any], asked: str | LoadedWiring | None) -> tuple[Member, ...]:
    """One run per wiring and seed; runs with the same label differ in their seed only."""
    plan = _read_plan(options["plan"], asked) if options["plan"] else None
    first = None if plan else asked or "depth2"
    wirings: list[tuple[str, WiringSource | None, Plan | None]] = [
        (options.get("label") or _label(first, plan), first, plan)
    ]
    wirings += [(Path(w).stem, w, None) for w in options["compare"]]
    names = [name for name, _, _ in wirings]
    members = []
    for k, (name, wiring, given) in enumerate(wirings):
        label = name if names.count(name) == 1 else f"{name}#{k + 1}"
        for seed in range(options["seed"], options["seed"] + options["seeds"]):
            members.append(Member(label, wiring, given, seed, _folder(options["run_dir"], label, seed)))
    return tuple(members)


def _label(wiring: str | LoadedWiring | None, plan: Plan | None) -> str:
    """What the runs of a wiring or a plan are called; a wiring that is to be chosen is called auto."""
    if plan:
        return plan.name
    return Path(wiring).stem if isinstance(wiring, str) else "auto"


def _folder(run_dir: str | None, label: str, seed: int) -> Path | None:
    # a plan's name is free text, and must not lead out of the folder
    return Path(run_dir) / re.sub(r"[^\w.#+-]|^\.+", "_", label) / f"seed{seed}" if run_dir else None


def _read_plan(file: str, wiring: str | LoadedWiring | None) -> Plan:
    if wiring:
        raise PlanError(Fault("P012", "--wiring and --plan exclude each other", fix="give one of them"))
    return read_plan(file)


def check_device(name: str) -> None:
    """Raise TrainingError (T023) where torch cannot make a tensor on the device and read it back."""
    try:
        float(torch.zeros((), device=name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        reason = "torch has none of this name" if reason.startswith(("Expected one of", "Invalid device")) else reason
        raise TrainingError(
            Fault("T023", f"device '{name}' cannot be used: {reason}", fix="use --device cpu")
        ) from error
