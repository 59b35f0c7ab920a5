"""`reclra-compile report RUN`: one page of what a run, or several, have come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reclra_compile.cli.errors import reports_errors

if TYPE_CHECKING:
    from reclra_compile.report.align import Missing
    from reclra_compile.report.summary import Report

#: where the page goes that is not given a name
PAGE = "report.html"


@click.command("report", short_help="Make one HTML page of the runs in RUN.")
@click.argument("run", metavar="RUN")
@click.option("--out", "-o", type=click.Path(dir_okay=False), metavar="FILE",
              help=f"the page, .html  [default: {PAGE} in RUN]")  # fmt: skip
@click.option("--model", metavar="MODEL", help="the runs' model, to measure angles with  [default: as they remember]")
@click.option("--data-dir", metavar="DIR", help="where the data set's files are  [default: as the runs remember]")
@click.option("--no-align", is_flag=True, help="leave the angles to backprop out: no model is run")
@click.option("--batches", type=click.IntRange(min=1), default=4, metavar="N",
              help="training batches that angles are measured on  [default: 4]")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads  [default: torch's]")
@click.option("--json", "as_json", is_flag=True, help="print what the page shows as JSON, and write no page")
@reports_errors
def report_run(**options: Any) -> str | None:
    """Make one HTML page of a run, or of all runs in a folder: what `train --run-dir RUN` has left.

    \b
    reclra-compile train model.py --compare backprop --seeds 3 --run-dir runs
    reclra-compile report runs
    reclra-compile report runs/depth2/seed0 --out first.html --no-align

    Curves of several seeds and wirings are laid over each other. The page has D(Θ) by region, the angles between the
    wirings' updates and backprop's, the pictures of the wirings, settings, environment, and the command that repeats
    it. It needs no network.

    For the angles the model's file is run, as train does, from where it was given; --no-align leaves them out.

    Exit status: 0; 2 for a mistake in the input.
    """
    from reclra_compile.cli.report import note
    from reclra_compile.errors import Fault, Location, UserError
    from reclra_compile.files import write_text
    from reclra_compile.report.document import as_json
    from reclra_compile.report.page import to_html
    from reclra_compile.report.runs import read_runs
    from reclra_compile.report.summary import summary

    root = Path(options["run"])
    out = Path(options["out"] or root / PAGE)
    if out.suffix.lower() != ".html":
        named = f"'{out.name}' does not end so" if not out.suffix else f"'{out.suffix}' is another format"
        raise UserError(
            Fault("V002", f"a report is a web page (.html); {named}", Location(str(out)), "end the name in .html")
        )
    made = summary(read_runs(root))
    if not options["no_align"]:
        made = _aligned(made, options)
    if options["as_json"]:
        import json

        return json.dumps(as_json(made), indent=2, ensure_ascii=False)
    write_text(out, to_html(made))
    for line in made.notes:
        note(f"note: {line}")
    note(f"report: {out}")
    return None


def _aligned(made: Report, options: dict[str, Any]) -> Report:
    """The report with angles, and with notes that say why runs have none."""
    from dataclasses import replace

    from reclra_compile.cli.report import console

    if not any(run.about and run.plan for run in made.runs):
        why = "Angles to backprop are left out: the runs do not remember how they were made."
        return replace(made, notes=(*made.notes, why))
    import torch

    from reclra_compile.cli.report_run_align import job_of
    from reclra_compile.report.align import aligned

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    err, said = console(stderr=True), set[str]()

    def notice(model: str) -> None:
        if model not in said and not options["as_json"]:
            said.add(model)
            text = f"alignment: running {model} (--no-align leaves it out)"
            err.print(text, style="dim", soft_wrap=True, markup=False)

    made, missing = aligned(
        made, lambda run: job_of(run, options["model"], options["data_dir"], notice), options["batches"]
    )
    return replace(made, notes=(*made.notes, *_why(missing, bool(made.aligned), options["model"] is not None)))


def _why(missing: list[Missing], some: bool, named: bool) -> list[str]:
    """A sentence for each reason why runs have no angles; `some` others have, `named`: the model was given."""
    runs: dict[str, list[str]] = {}
    for each in missing:
        fault = each.fault
        unnamed = fault.code[0] == "M" and not named
        fix = "name the model with --model, as seen from this folder" if unnamed else fault.fix
        fix = "" if fault.code == "T020" else fix  # which is for resuming
        said = f" {fault.message} ({fault.code}). {fix[:1].upper()}{fix[1:]}".rstrip(". ") + "."
        runs.setdefault(said, []).append(each.run)
    if not some and len(runs) == 1:
        return [f"Angles to backprop are left out:{said}" for said in runs]
    return [f"Angles to backprop of {'; '.join(of)} are left out:{said}" for said, of in runs.items()]
