"""Searching settings of a row on held-out images: points of a grid, and trials that are kept in a file."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reclra_compile.errors import Fault, Location, UserError, nearest
from reclra_compile.files import make_folder
from reclra_compile.reproduce.cases import Case, at_scale, case_of, given
from reclra_compile.reproduce.pool import Event, run_all
from reclra_compile.reproduce.schema import Row, Scale
from reclra_compile.reproduce.tables import Table
from reclra_compile.spec.schema import TrainingSpec
from reclra_compile.spec.yaml_marks import read_yaml

Point = dict[str, Any]
Choices = list[Any] | tuple[float, float]
OTHER = ("wiring", "granularity")  #: keys of a row that are no training settings and may be searched over


def grid(options: Sequence[str]) -> dict[str, Choices]:
    """The values of each key of `key=a,b,c`, or the ends of `key=a..b`; raises UserError (R006) with every fault."""
    found: dict[str, Choices] = {}
    faults = []
    for option in options:
        key, equals, text = (part.strip() for part in option.partition("="))
        known = [*TrainingSpec.model_fields, *OTHER]
        low, dots, high = text.partition("..")
        if not equals or not text:
            faults.append(Fault("R006", f"'{option}' is not of the form key=value,value", fix="as in lr=1e-3,2e-3"))
        elif key not in known and "." not in key:
            fix = f"{nearest(key, known)}; a part of the wiring is written with its section, as in target.beta=0.1"
            faults.append(Fault("R006", f"there is no setting '{key}'", fix=fix))
        elif key in found:
            faults.append(Fault("R006", f"'{key}' is given twice", fix="give all its values in one --grid"))
        elif dots:
            ends = _value(low), _value(high)
            if not all(isinstance(e, int | float) and e > 0 for e in ends) or not ends[0] < ends[1]:
                faults.append(Fault("R006", f"'{option}' is no range", fix="as in lr=1e-4..1e-2, with --random"))
            else:
                found[key] = (float(ends[0]), float(ends[1]))
        else:
            found[key] = [_value(v) for v in text.split(",")]
    if faults:
        raise UserError(faults)
    return found


def _value(text: str) -> Any:
    return read_yaml(text.strip(), "--grid").data


def points(choices: dict[str, Choices], draws: int | None, seed: int) -> list[Point]:
    """All points of a grid, or `draws` random ones: of a range, log-uniform. Raises UserError (R006)."""
    ranges = [key for key, values in choices.items() if isinstance(values, tuple)]
    if draws is None:
        if ranges:
            raise UserError(Fault("R006", f"'{ranges[0]}' is a range, not a list of values", fix="add --random N"))
        return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    dice = random.Random(seed)
    if not ranges:
        every = points(choices, None, seed)
        return dice.sample(every, min(draws, len(every)))
    return [{key: _drawn(values, dice) for key, values in choices.items()} for _ in range(draws)]


def _drawn(values: Choices, dice: random.Random) -> Any:
    if isinstance(values, list):
        return dice.choice(values)
    return float(f"{math.exp(dice.uniform(math.log(values[0]), math.log(values[1]))):.3g}")


def at_point(table: Table, row: Row, scale: Scale, point: Point) -> tuple[Case, dict[str, Any]]:
    """The run of a row at a point, without its test images, and what would be written into the row.

    Raises UserError (R006) for a value that cannot be used.
    """
    settings = {k: v for k, v in point.items() if k in TrainingSpec.model_fields}
    entry: dict[str, Any] = {"wiring": row.wiring, "change": json.loads(json.dumps(row.change))}
    entry |= {"granularity": row.granularity} if row.granularity else {}
    for key, value in point.items():
        if key in OTHER:
            entry[key] = value
        elif key not in settings:
            *sections, last = key.split(".")
            place = entry["change"]
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
    try:
        TrainingSpec(**settings)
    except ValidationError as error:
        raise UserError(
            Fault("R006", f"{e['loc'][0]}={e['input']} cannot be used: {e['msg'][:1].lower()}{e['msg'][1:]}")
            for e in error.errors()
        ) from error
    case = case_of(table, row.model_copy(update=entry), at_scale(table, row, scale))
    if case.problem:
        raise UserError(Fault("R006", f"{shown(point)}: {case.problem}"))
    case = replace(case, settings=case.settings | settings, test=False)
    return case, {"settings": given(row.settings) | settings, **{k: v for k, v in entry.items() if v}}


def shown(point: Point) -> str:
    """A point in a few words."""
    return ", ".join(f"{k} {v}" for k, v in point.items()) or "settings as they are"


@dataclass(frozen=True)
class Trials:
    """The trials of a table, one JSON object per line; lines are only ever added."""

    file: Path

    def read(self) -> list[dict[str, Any]]:
        """All trials; raises UserError (R008) for a line that is none."""
        if not self.file.exists():
            return []
        made = []
        for number, line in enumerate(self.file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                trial = json.loads(line)
                made.append({**trial, "digest": str(trial["digest"]), "group": str(trial["group"])})
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    Fault("R008", "this line is not a trial", Location(str(self.file), number), "remove it")
                ) from error
        return made

    def add(self, trial: dict[str, Any]) -> None:
        """Append a trial in one write, so that searches at the same time do not mix their lines."""
        make_folder(self.file.parent)
        try:
            with open(self.file, "ab", buffering=0) as stream:
                stream.write((json.dumps(trial) + "\n").encode())
                os.fsync(stream.fileno())
        except OSError as error:
            raise UserError(
                Fault("F001", f"cannot write this file: {error.strerror or error}", Location(str(self.file)),
                      "name another with --trials FILE")
            ) from error


@dataclass(frozen=True)
class Search:
    """A search over points of one row at a scale, with `seeds` runs a point, on `images` of the training images (None:
    as many as the scale has).
    """

    table: Table
    row: Row
    scale: Scale
    points: Sequence[Point]
    seeds: int
    trials: Trials
    images: int | None = None

    @property
    def limit(self) -> int:
        """Training images of a trial; 0 for all."""
        return self.images or at_scale(self.table, self.row, self.scale).images or 0

    def todo(self) -> list[tuple[Case, Point, dict[str, Any]]]:
        """The runs that are not yet among the trials, seed by seed. Raises UserError with every fault."""
        done = {t["digest"] for t in self.trials.read() if not t.get("problem", "").startswith("[R005]")}
        faults: list[Fault] = []
        made = []
        for point in self.points:
            try:
                case, entry = at_point(self.table, self.row, self.scale, point)
                made.append((replace(case, images=self.limit), entry, point))
            except UserError as error:
                faults += error.faults
        if faults:
            raise UserError(faults)
        runs = [(replace(case, seed=k), point, entry) for k in range(self.seeds) for case, entry, point in made]
        fresh = {case.digest: (case, point, entry) for case, point, entry in runs}
        return [run for digest, run in fresh.items() if digest not in done]

    def run(
        self, todo: Sequence[tuple[Case, Point, dict[str, Any]]], jobs: int, data_dir: str | None, device: str
    ) -> Iterator[tuple[Case, Point, Event]]:
        """Run trials and keep each; yields what happens."""
        about = {case.digest: (point, entry) for case, point, entry in todo}
        for case, event in run_all([case for case, _, _ in todo], None, jobs=jobs, data_dir=data_dir, device=device):
            point, entry = about[case.digest]
            if "epoch" not in event:
                self.trials.add(_trial(case, self.scale, point, entry, event))
            yield case, point, event

    def ranking(self) -> list[dict[str, Any]]:
        """All kept trials of this row at this scale, on as many images; a point's seeds together, the best first."""
        groups: dict[str, list[dict[str, Any]]] = {}
        last = {t["digest"]: t for t in self.trials.read()}  # a trial that died may have been run again
        for t in last.values():
            of = t.get("row"), t.get("data"), t.get("scale"), t.get("limit", 0)
            if of == (self.row.row, self.row.data, self.scale, self.limit):
                groups.setdefault(t["group"], []).append(t)
        ranked = []
        for trials in groups.values():
            errors = [t["valid_error"] for t in trials if t.get("valid_error") is not None]
            failed = [t["problem"] for t in trials if t.get("problem")]
            mean = statistics.fmean(errors) if errors and not failed else None
            ranked.append({**trials[-1], "mean": mean, "each": errors, "failed": failed})
        return sorted(ranked, key=lambda t: math.inf if t["mean"] is None else t["mean"])


def _trial(case: Case, scale: Scale, point: Point, entry: dict[str, Any], event: Event) -> dict[str, Any]:
    trial: dict[str, Any] = {
        "table": case.table, "row": case.row, "data": case.data, "scale": scale, "limit": case.images,
        "seed": case.seed, "point": point,
        "entry": entry, "digest": case.digest, "group": replace(case, seed=0).digest,
    }  # fmt: skip
    if "faults" in event:
        return trial | {"problem": "; ".join(f"[{f['code']}] {f['message']}" for f in event["faults"])}
    result = event["result"]
    kept = ("valid_error", "train_error", "epochs", "seconds", "settings", "images", "versions")
    curve = [e["valid_error"] for e in result["history"]]
    return trial | {k: result[k] for k in kept} | {"valid_errors": curve}
