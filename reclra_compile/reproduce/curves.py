"""Error over training as curves, by epoch and by seconds: the mean over seeds, and the band from least to most."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from reclra_compile.reproduce.page import SETS
from reclra_compile.reproduce.summary import Line, Record
from reclra_compile.view.curves import Curve, Panel


def panels(lines: Sequence[Line]) -> list[Panel]:
    """Two panels for each data set: the held-out error by epoch, and by seconds of training."""
    made = []
    for data in dict.fromkeys(line.row.data for line in lines):
        drawn = [line for line in lines if line.row.data == data and line.records]
        if not drawn:
            continue
        name = SETS.get(data, data)
        for by, unit in (("epoch", "epochs"), ("seconds", "seconds of training")):
            curves = tuple(curve(line.row.row, line.records, by) for line in drawn)
            made.append(Panel(f"{name}, by {by}", unit, "held-out error, %", curves))
    return made


def curve(name: str, records: Sequence[Record], by: str) -> Curve:
    """The curve of one row: as many epochs as every seed has."""
    epochs = list(zip(*(r["history"] for r in records), strict=False))
    errors = [[float(e["valid_error"]) for e in each] for each in epochs]
    x = tuple(statistics.fmean(float(e[by]) for e in each) for each in epochs)
    band = len(records) > 1
    return Curve(
        name, x, tuple(statistics.fmean(e) for e in errors),
        tuple(min(e) for e in errors) if band else (), tuple(max(e) for e in errors) if band else (),
    )  # fmt: skip
