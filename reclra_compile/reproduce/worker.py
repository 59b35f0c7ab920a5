"""A process that runs cases one after the other: `python -m reclra_compile.reproduce.worker`.

Each line of its input is a request, {"case", "folder", "data_dir", "device"}; each line of its output is an event
of the run: {"epoch", "epochs", "taken", "total", "loss", "discrepancy", "valid_error", "seconds"} after each epoch and
about once a second, and at last {"result"} or {"faults"}. It ends with its input. In a process of its own a run has its
own random state and thread, and one that dies takes no other along.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reclra_compile import __version__
from reclra_compile.compiler import plan_for
from reclra_compile.data.preprocess import preprocessed
from reclra_compile.data.sets import DataSet, load
from reclra_compile.errors import Fault, ReclraError, TrainingError
from reclra_compile.frontend.example import example_of
from reclra_compile.frontend.load_model import load_model
from reclra_compile.reproduce.cases import Case
from reclra_compile.train.brought import brought_loss
from reclra_compile.train.job import Job, Member, Result
from reclra_compile.train.loop import Epoch, Run
from reclra_compile.train.steps import Live, live_part
from reclra_compile.train.trial import PARTS, measure_on

Report = Callable[[dict[str, Any]], None]


#: seconds between two reports within an epoch
OFTEN = 1.0


class _Hears:
    """The watcher of a run: keeps the run, and reports its epochs, and `live` where it is within one."""

    def __init__(self, report: Report, live: Report | None) -> None:
        self.report, self.live = report, live
        self.run: Run | None = None
        self._valid: float | None = None
        self._said = time.monotonic()

    def start(self, member: Member, run: Run, history: list[Epoch]) -> None:
        """A run begins, or goes on."""
        self.run = run
        self._valid = history[-1].valid_error if history else None
        self._say(self.report, run, None)

    def step(self, member: Member, run: Run) -> None:
        """A step is reported now and then."""
        if self.live is not None and time.monotonic() - self._said >= OFTEN:
            self._say(self.live, run, live_part(run))

    def epoch(self, member: Member, run: Run, epoch: Epoch) -> None:
        """An epoch is done."""
        self._valid = epoch.valid_error
        self._say(self.report, run, Live(epoch.loss, epoch.discrepancy))

    def _say(self, report: Report, run: Run, live: Live | None) -> None:
        self._said = time.monotonic()
        report({
            "epoch": run.epoch, "epochs": run.settings.epochs, "taken": run.taken,
            "total": run.steps * run.settings.epochs, "loss": live.loss if live else None,
            "discrepancy": live.discrepancy if live else None, "valid_error": self._valid,
            "seconds": run.elapsed if run.done else run.seconds,
        })  # fmt: skip


def run_case(
    case: Case, folder: Path | None, data_dir: str | None, device: str, report: Report, live: Report | None = None
) -> dict[str, Any]:
    """Train one case, going on from the checkpoint in `folder`, and give its record.

    `report` hears of its epochs, `live` of what is known within them.

    The test part is looked at once, with the weights after the last epoch. Raises ReclraError.
    """
    data = _data(case, data_dir)
    loaded = load_model(case.model)
    with loaded.blamed():
        plan = plan_for(loaded.model, loaded.inputs, case.wiring, granularity=case.granularity)
    job = Job(
        case.model, data, dict(case.settings), True, device, granularity=case.granularity,
        augment=case.augment or "none", blind=True,
    )  # fmt: skip
    job.fits(plan, loaded)
    job.reaches(plan)
    job.augmentation(example_of(loaded.model, loaded.inputs))
    job = dataclasses.replace(job, measure=measure_on(loaded, data, brought_loss(loaded), None))
    heard = _Hears(report, live)
    member = Member(case.row, case.wiring, None, case.seed, folder)
    started = time.perf_counter()
    result = _from_checkpoint_or_anew(job, member, heard)
    run = heard.run
    assert run is not None
    errors: dict[str, Any] = {"train_error": None, "valid_error": None, "test_error": None}
    if result.history:
        last = result.history[-1]
        errors |= {"train_error": last.train_error, "valid_error": last.valid_error}
    if case.test:
        inputs, y = data.split("test", example_of(loaded.model, loaded.inputs))
        errors["test_error"] = run.measured((tuple(x.to(device) for x in inputs), y.to(device)))
    return {
        "digest": case.digest, "case": dataclasses.asdict(case), **errors,
        "epochs": len(result.history), "seconds": run.seconds, "wall_seconds": time.perf_counter() - started,
        "settings": dataclasses.asdict(result.settings), "history": [e.as_json() for e in result.history],
        "images": {part: data.count(part) for part in PARTS},
        "flops_ratio": plan.cost.ratio, "parameters": sum(r.parameter_count for r in plan.regions),
        "versions": {"reclra_compile": __version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }  # fmt: skip


def _from_checkpoint_or_anew(job: Job, member: Member, heard: _Hears) -> Result:
    """Train; a checkpoint that is damaged, or of an earlier version of the code, is dropped."""
    try:
        return job.run(member, heard)
    except TrainingError as error:
        if member.folder is None or {f.code for f in error.faults} - {"T020", "T021"}:
            raise
        shutil.rmtree(member.folder)
        return job.run(member, heard)


def _data(case: Case, data_dir: str | None) -> DataSet:
    """The case's data, cut to its number of images and preprocessed."""
    return _read(case.data, data_dir, case.validation, case.images, case.test_images, case.preprocess)


@functools.lru_cache(maxsize=1)  # whitening takes longer than many a run
def _read(
    name: str, data_dir: str | None, validation: int, images: int, test_images: int, preprocess: str | None
) -> DataSet:
    data = load(name, data_dir, validation=validation)
    train, test = slice(images or None), slice(test_images or None)
    data = dataclasses.replace(
        data, x_train=data.x_train[train], y_train=data.y_train[train],
        x_test=data.x_test[test], y_test=data.y_test[test],
    )  # fmt: skip
    return preprocessed(data, preprocess or "none")


def serve() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides when a run ends
    torch.set_num_threads(int(os.environ.get("RECLRA_THREADS", "1")))
    out = sys.stdout

    def report(event: dict[str, Any]) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    with contextlib.redirect_stdout(sys.stderr):  # a model's file may print
        for line in sys.stdin:
            request = json.loads(line)
            folder = Path(request["folder"]) if request["folder"] else None
            report(answer(Case(**request["case"]), folder, request["data_dir"], request["device"], report))


def answer(case: Case, folder: Path | None, data_dir: str | None, device: str, report: Report) -> dict[str, Any]:
    """{"result"} of a case, or {"faults"} where it has none, whatever went wrong in it."""
    try:
        return {"result": run_case(case, folder, data_dir, device, report, report)}
    except ReclraError as error:
        faults = error.faults
    except OSError:  # who asked is gone
        raise
    except Exception as error:  # the row has failed; the rows after it need not
        traceback.print_exc()
        faults = (Fault("R005", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"),)
    return {"faults": [{"code": f.code, "message": f.message, "fix": f.fix} for f in faults]}


if __name__ == "__main__":
    serve()
