"""A search as people see it: a bar, a line per trial, and the ranking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.markup import escape

from reclra_compile.cli.report import console, note
from reclra_compile.cli.reproduce_view import Bar
from reclra_compile.cli.tables import NUMBER, TEXT, table
from reclra_compile.data.sets import load
from reclra_compile.errors import Fault, UserError
from reclra_compile.reproduce.cases import chosen
from reclra_compile.reproduce.edit import write_row
from reclra_compile.reproduce.page import time_of
from reclra_compile.reproduce.search import Search, Trials, grid, points, shown
from reclra_compile.reproduce.tables import load_table, trials_folder

SHOWN = 12


def carry_out(options: dict[str, Any]) -> str | None:
    """Do what the command line asks for; returns JSON where that is wanted. Raises UserError."""
    spec = load_table(options["table"])
    rows = chosen(spec, [options["row"]], [options["data"]])
    if not rows:
        there = ", ".join(r.data for r in spec.spec.rows if r.row.lower() == options["row"].lower())
        message = f"the row '{options['row']}' is not on {options['data']}"
        raise UserError(Fault("R003", message, fix=f"it is on {there}"))
    trials = Trials(Path(options["trials"] or trials_folder(spec) / f"{spec.spec.table}.jsonl"))
    where = points(grid(options["grid"]), options["draws"], options["seed"])
    search = Search(spec, rows[0], options["scale"], where, options["seeds"], trials, options["images"])
    todo = search.todo()
    for case, _, _ in todo[:1]:
        load(case.data, options["data_dir"], validation=case.validation)
        if not case.validation:
            raise UserError(
                Fault("R006", f"no image of {case.data} is held out, so nothing can be chosen",
                      spec.where("validation"), f"add 'validation: {{{case.data}: 2000}}'")
            )
    quiet = options["as_json"]
    if not quiet:
        note(f"{len(where)} points × {options['seeds']} seeds: {len(todo)} trials to run")
    bar = Bar(len(todo), quiet)
    with bar.progress:
        for case, point, event in search.run(todo, options["jobs"], options["data_dir"], options["device"]):
            if "epoch" not in event and not quiet:
                bar.out.print(f"[bold]{escape(shown(point))}[/]", soft_wrap=True)
            bar.hear(case, event)
    ranked = search.ranking()
    best = next((t for t in ranked if t["mean"] is not None), None)
    if options["write"]:
        _write(search, ranked, best)
    if quiet:
        return json.dumps({"version": 1, "trials": ranked}, indent=2, ensure_ascii=False)
    _show(ranked)
    note(f"trials: {trials.file}")
    if options["write"]:
        note(f"written: the best settings, into {spec.file}")
    return None


def _write(search: Search, ranked: list[dict[str, Any]], best: dict[str, Any] | None) -> None:
    if best is None:
        raise UserError(Fault("R007", "no trial of this row has a result", fix="search with other values"))
    n = len(best["each"])
    images = best["images"]
    few = f", {images['train']:,} training images," if search.images else ""
    found = (f"best of {len(ranked)} trials at scale {search.scale}{few} on {images['valid']:,} held-out images: "
             f"{best['mean']:.2f} %" + (f" (mean of {n} seeds)" if n > 1 else ""))  # fmt: skip
    write_row(search.table.file, search.row.row, search.row.data, {**best["entry"], "found": found})


def _show(ranked: list[dict[str, Any]]) -> None:
    rows = []
    for k, t in enumerate(ranked[:SHOWN], 1):
        if t["mean"] is None:
            rows.append([str(k), "–", "0", "–", "–", f"{shown(t['point'])}: {t['failed'][-1] if t['failed'] else ''}"])
            continue
        train = "–" if t.get("train_error") is None else f"{t['train_error']:.2f}"
        rows.append([str(k), f"{t['mean']:.2f}", str(len(t["each"])), train, time_of(t["seconds"]), _point(t)])
    columns = [("", NUMBER), ("valid", NUMBER), ("seeds", NUMBER), ("train", NUMBER), ("time", NUMBER),
               ("tried", TEXT)]  # fmt: skip
    console().print(table("error on held-out images, percent", columns, rows, None, None), soft_wrap=True)
    if len(ranked) > SHOWN:
        note(f"and {len(ranked) - SHOWN} more")


def _point(trial: dict[str, Any]) -> str:
    """What was tried; epochs are said as well, since more of them are mostly better."""
    point = dict(trial["point"])
    point.setdefault("epochs", trial["epochs"])
    return shown(point)
