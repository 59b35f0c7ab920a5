"""Reproducing as people see it: a bar over all runs, a line per finished run, and the table."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from reclra_compile.cli.report import console, note
from reclra_compile.cli.reproduce_plans import plan_rows
from reclra_compile.cli.tables import NUMBER, TEXT, Cell, table
from reclra_compile.cli.training_progress import clock_text, status_line
from reclra_compile.errors import Fault, UserError
from reclra_compile.files import make_folder, write_atomically, write_text
from reclra_compile.reproduce.cases import Case, chosen
from reclra_compile.reproduce.curves import panels
from reclra_compile.reproduce.page import cells, markdown, time_of
from reclra_compile.reproduce.pool import Event, Store
from reclra_compile.reproduce.run import Reproduction, default_folder
from reclra_compile.reproduce.summary import Line, tally
from reclra_compile.reproduce.tables import Table, load_table
from reclra_compile.view.curves import curves_svg, size_of
from reclra_compile.view.png import svg_png


class Bar:
    """Progress over runs on standard error, and a line for each that is trained; nothing where that is no terminal."""

    def __init__(self, runs: int, quiet: bool) -> None:
        self.out = console(stderr=True)
        self.quiet, self.runs, self.done = quiet, runs, 0
        self.running: dict[str, Event] = {}
        self.progress = _Runs(self.out, quiet or not self.out.is_terminal)
        self.task = self.progress.add_task("", total=runs)

    def hear(self, case: Case, event: Event) -> None:
        """Move on by an epoch or a part of one, or a finished run."""
        if "epoch" in event:
            self.running[case.name] = event
        else:
            self.running.pop(case.name, None)
            self.done += 1
            if not self.quiet:
                self.out.print(self._line(case, event), soft_wrap=True)
        self.progress.lines = [_known(name, event, self.out.width) for name, event in self.running.items()]
        self.progress.update(self.task, completed=self.done + sum(map(_share, self.running.values())))

    def _line(self, case: Case, event: Event) -> str:
        head = f"[dim]{self.done}/{self.runs}[/] [bold]{escape(case.row)}[/], {escape(case.data)}, seed {case.seed}"
        if "faults" in event:
            return f"{head}: [red]{escape('; '.join(f['message'] for f in event['faults']))}[/]"
        r = event["result"]
        kinds = ("test", "valid", "train")
        errors = [f"{k} {r[f'{k}_error']:.2f} %" for k in kinds if r[f"{k}_error"] is not None]
        return f"{head}: {', '.join(errors)}, {r['epochs']} epochs, {time_of(r['seconds'])}"


class _Runs(Progress):
    """The bar of all runs, and lines of those that are trained."""

    def __init__(self, out: Console, disable: bool) -> None:
        self.lines: list[str] = []
        super().__init__(
            BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("runs"), TimeRemainingColumn(),
            TextColumn("left"), console=out, disable=disable, transient=True, expand=True,
        )  # fmt: skip

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, and what is known of each run."""
        yield from super().get_renderables()
        for line in self.lines:
            yield Text(line, style="dim", no_wrap=True, overflow="ellipsis")


def _share(event: Event) -> float:
    """How much of a run is done."""
    done, of = ("taken", "total") if "taken" in event else ("epoch", "epochs")
    return float(event[done]) / max(float(event[of]), 1.0)


def _known(name: str, event: Event, room: int) -> str:
    """What is known of a run that is trained; what has no room is left out."""
    parts = [(f"{name}: epoch {min(event['epoch'] + 1, event['epochs'])}/{event['epochs']}", 0)]
    shown = (("loss", "loss {:.4f}", 1), ("discrepancy", "D(Θ) {:.2e}", 4), ("valid_error", "valid {:.2f} %", 2))
    parts += [(text.format(event[key]), rank) for key, text, rank in shown if event.get(key) is not None]
    share, seconds = _share(event), event.get("seconds") or 0.0
    if share and seconds:
        parts.append((f"{clock_text(seconds / share * (1 - share))} left", 3))
    return status_line(parts, room)


def carry_out(options: dict[str, Any]) -> str | None:
    """Do what the command line asks for; returns JSON where that is wanted. Raises UserError."""
    spec = load_table(options["table"])
    rows = chosen(spec, options["only"], options["data"])
    folder = Path(options["run_dir"]) if options["run_dir"] else default_folder(spec, options["scale"])
    if spec.spec.kind == "plans":
        return plan_rows(spec, rows, folder, options)
    work = Reproduction(spec, options["scale"], rows, Store(folder), options["seeds"])
    work.prepare(options["resume"] or options["dry_run"])
    if options["dry_run"]:
        return _list(work, options["as_json"])
    work.check_data(options["data_dir"])
    make_folder(folder)
    quiet = options["as_json"]
    if work.reused and not quiet:
        note(f"{work.reused} finished runs are kept, {len(work.todo)} are to be run")
    bar = Bar(len(work.todo), quiet)
    with bar.progress:
        for case, event in work.run(options["jobs"], options["data_dir"], options["device"], options["threads"]):
            bar.hear(case, event)
            if "epoch" not in event:
                write(work, folder)
    lines = work.lines(chosen_only=True)
    files = write(work, folder, pictures=True)
    if quiet:
        return report_json(work, lines)
    show(spec, lines)
    for file in files:
        note(f"written: {file}")
    _missing(lines)
    return None


def write(work: Reproduction, folder: Path, pictures: bool = False) -> list[Path]:
    """Write the table as Markdown and JSON, and the curves of a figure; returns the files."""
    lines, name = work.lines(), work.table.spec.table
    drawn = _draw(work, lines, folder / f"{name}.svg") if pictures and work.table.spec.kind == "curves" else []
    page, data = folder / f"{name}.md", folder / f"{name}.json"
    command = ["reclra-compile", *sys.argv[1:]] if sys.argv[1:2] == ["reproduce"] else [
        "reclra-compile", "reproduce", name, "--scale", work.scale
    ]  # fmt: skip
    write_text(page, markdown(work.table, work.scale, lines, command, [f.name for f in drawn if f.suffix == ".svg"]))
    write_text(data, report_json(work, lines) + "\n")
    return [page, data, *drawn]


def _draw(work: Reproduction, lines: list[Line], file: Path) -> list[Path]:
    """The curves as SVG, and as PNG where that can be made."""
    made = panels(lines)
    if not made:
        return []
    svg = curves_svg(work.table.spec.title, made)
    write_text(file, svg)
    png = file.with_suffix(".png")
    try:
        picture = svg_png(svg, *size_of(made, 2))
    except UserError:  # without the extra [png], or a font, there is the SVG
        return [file]
    write_atomically(png, lambda out: out.write(picture))
    return [file, png]


def report_json(work: Reproduction, lines: list[Line]) -> str:
    """{"version", "table", "scale", "rows": […]}."""
    report = {"version": 1, "table": work.table.spec.table, "scale": work.scale,
              "rows": [line.as_json() for line in lines]}  # fmt: skip
    return json.dumps(report, indent=2, ensure_ascii=False)


def show(spec: Table, lines: list[Line]) -> None:
    """The table on standard output; the page that is written has more columns."""
    out = console()
    column = lines[0].column if lines else "test"
    compared = any(line.theirs is not None for line in lines)
    columns = [("row", TEXT), ("data set", TEXT), (f"our {column}", NUMBER)]
    columns += [("paper", NUMBER), ("gap", NUMBER)] if compared else []
    columns += [("train", NUMBER), ("verdict", TEXT) if compared else ("time", NUMBER)]
    rows: list[Sequence[Cell]] = []
    for line in lines:
        name, data, _, theirs, gap, train, _, _, time, said = cells(line)
        style = "green" if line.gap is not None and line.gap <= 0 else "" if line.records else "red"
        short = said.partition(" (")[0].partition(" by ")[0] if line.records else "no result"  # the gap is beside it
        beside = [theirs, gap, train, Text(short, style)] if compared else [train, time]
        rows.append([name, data, str(line.ours), *beside])
    out.print(table(spec.spec.title, columns, rows, None, None), soft_wrap=True)
    out.print()
    seeds = sorted({len(line.records) for line in lines if line.records})
    means = f"{' or '.join(map(str, seeds))} seed{'' if seeds == [1] else 's'} a row" if seeds else "no run is finished"
    out.print(f"{means}; {tally(lines)}" if compared else means, soft_wrap=True)


def _missing(lines: list[Line]) -> None:
    """Raise UserError (R005) for the rows without a result."""
    faults = [
        Fault("R005", f"{line.row.row} on {line.row.data} has no result: {line.problems[0]}")
        for line in lines
        if not line.records and line.problems
    ]
    if faults:
        raise UserError(faults)


def _list(work: Reproduction, as_json: bool) -> str:
    """The runs that would be made."""
    if as_json:
        runs = [
            {"row": c.row, "data": c.data, "seed": c.seed, "model": c.model, "wiring": c.wiring,
             "settings": c.settings, "validation": c.validation, "images": c.images}
            for c in work.todo
        ]  # fmt: skip
        return json.dumps({"version": 1, "runs": runs, "finished": work.reused}, indent=2, ensure_ascii=False)
    text = []
    for c in work.todo:
        settings = ", ".join(f"{k} {v}" for k, v in c.settings.items())
        wiring = c.wiring if isinstance(c.wiring, str) else c.wiring.get("name", "a wiring of its own")
        text.append(f"{c.row}, {c.data}, seed {c.seed}: {Path(c.model).name}, {wiring}; {settings}")
    problems = [f"{row}, {data}: {p[0]}" for (row, data), p in work.problems.items()]
    return "\n".join([*text, *problems, f"{len(text)} runs to make, {work.reused} finished"])
