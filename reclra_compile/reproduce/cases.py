"""Cases: what one run is made of. A table, a scale and a selection of rows become a list of cases."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from reclra_compile import __version__
from reclra_compile.errors import Fault, ReclraError, UserError, WiringError, nearest
from reclra_compile.frontend.load_model import load_model
from reclra_compile.reproduce.schema import Row, Scale, ScaleSpec
from reclra_compile.reproduce.tables import Table
from reclra_compile.spec.load import load_wiring
from reclra_compile.spec.schema import TrainingSpec
from reclra_compile.spec.yaml_marks import read_text, read_yaml

SEEDS: dict[Scale, int] = {"smoke": 1, "hours": 3, "paper": 10}
WiringData = str | dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One run: a row of a table on a data set, with a seed, and everything that decides its result.

    `images` and `test_images` 0 stand for all. `test` is false where only the validation images are looked at.
    """

    table: str
    row: str
    data: str
    model: str
    wiring: WiringData
    granularity: str | None
    settings: dict[str, float | int | str]
    preprocess: str | None
    augment: str | None
    validation: int
    images: int
    test_images: int
    seed: int
    test: bool = True
    problem: str = field(default="", compare=False)

    @property
    def digest(self) -> str:
        """A hash of everything that decides the result, but for the versions of Python and torch."""
        facts = {k: v for k, v in asdict(self).items() if k not in ("table", "row", "model", "problem")}
        wiring = self.wiring
        if isinstance(wiring, str):
            loaded = load_wiring(wiring).wiring
            wiring = loaded.model_dump(mode="json", exclude_unset=True)
        facts["wiring"] = {k: v for k, v in wiring.items() if k not in ("about", "name")}
        file, _, builder = self.model.partition(":")
        facts["model"] = [Path(file).read_text(encoding="utf-8"), builder]
        facts["version"] = __version__
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """A name for files and lines: row, data set and seed."""
        return re.sub(r"[^\w.+]+", "-", f"{self.row} {self.data} seed{self.seed}").strip("-")


def cases(table: Table, scale: Scale, rows: Iterable[Row], seeds: int | None = None) -> list[Case]:
    """The runs of some rows, seed by seed, so that every row has one result before any has two."""
    made = []
    for row in rows:
        spec = at_scale(table, row, scale)
        count = seeds or spec.seeds or SEEDS[scale]
        made.append([replace(case_of(table, row, spec), seed=k) for k in range(count)])
    longest = max(map(len, made), default=0)
    return [group[k] for k in range(longest) for group in made if k < len(group)]


def case_of(table: Table, row: Row, spec: ScaleSpec) -> Case:
    """The run of a row with seed 0; `problem` says why it cannot be run, where it cannot."""
    problem, wiring = "", row.wiring
    model = table.model(spec.model or row.model)
    try:
        wiring = changed_wiring(table, row.wiring, row.change)
        _checked(wiring, model)
    except ReclraError as error:
        problem = "; ".join(f"{f.message} ({f.fix})" if f.fix else f.message for f in error.faults)
    if not Path(model.partition(":")[0]).is_file():
        problem = problem or f"there is no model file {model.partition(':')[0]}"
    validation = table.spec.validation.get(row.data, 0) if row.validation is None else row.validation
    return Case(
        table.spec.table, row.row, row.data, model, wiring, row.granularity, settings_of(table, row, spec),
        row.preprocess, row.augment, validation if spec.validation is None else int(spec.validation),
        spec.images or 0, spec.test_images or 0, 0, problem=problem,
    )  # fmt: skip


def _checked(wiring: WiringData, model: str) -> None:
    """Raise WiringError for a wiring that cannot be used; the model's file may register rules that it names."""
    try:
        load_wiring(wiring)
    except WiringError as error:
        if not any(f.code == "W004" for f in error.faults) or not Path(model.partition(":")[0]).is_file():
            raise
        load_model(model)
        load_wiring(wiring)


def at_scale(table: Table, row: Row, scale: Scale) -> ScaleSpec:
    """What a scale asks for, the row's words before the table's."""
    general, own = table.spec.scales.get(scale, ScaleSpec()), row.scales.get(scale, ScaleSpec())
    merged = general.model_dump(exclude_unset=True) | own.model_dump(exclude_unset=True)
    settings = given(general.settings) | given(own.settings)
    return ScaleSpec(**{**merged, "settings": TrainingSpec(**settings)})


def settings_of(table: Table, row: Row, spec: ScaleSpec) -> dict[str, float | int | str]:
    """The training settings that are given: the table's, the row's, the scale's, each before the one earlier."""
    merged = given(table.spec.settings) | given(row.settings) | given(spec.settings)
    return merged | ({"epochs": spec.epochs} if spec.epochs else {})


def given(settings: TrainingSpec) -> dict[str, Any]:
    """The settings that are not left to the wiring."""
    return {k: v for k, v in settings.model_dump(exclude_unset=True).items() if v is not None}


def changed_wiring(table: Table, wiring: WiringData, change: Mapping[str, Any]) -> WiringData:
    """The wiring with some of its parts changed, mappings merged key by key; raises WiringError."""
    source = table.wiring_file(wiring) if isinstance(wiring, str) else wiring
    if not change:
        return source
    if isinstance(source, str):
        file = load_wiring(source).file
        data: Any = read_yaml(read_text(file), file).data
    else:
        data = copy.deepcopy(source)
    _merge(data, change)
    made: dict[str, Any] = data
    return made


def _merge(data: dict[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(data.get(key), dict):
            _merge(data[key], value)
        else:
            data[key] = copy.deepcopy(value)


def _known(word: str, names: list[str]) -> str:
    """The name that is meant, or all names, which have commas in them."""
    near = nearest(word, names)
    return near if near.startswith("did") else "there are " + ", ".join(f"'{n}'" for n in names)


def chosen(table: Table, only: Sequence[str], data: Sequence[str]) -> list[Row]:
    """The table's rows with these names, on these data sets; all where none is named. Raises UserError (R003)."""
    rows = table.spec.rows
    names, sets = list(dict.fromkeys(r.row for r in rows)), list(dict.fromkeys(r.data for r in rows))
    faults = [
        Fault("R003", f"{table.spec.table} has no {what} '{word}'", fix=_known(word, known))
        for what, words, known in (("row", only, names), ("data set", data, sets))
        for word in words
        if word.lower() not in [k.lower() for k in known]
    ]
    if faults:
        raise UserError(faults)
    wanted, within = {w.lower() for w in only}, {d.lower() for d in data}
    return [
        r for r in rows if (not wanted or r.row.lower() in wanted) and (not within or r.data.lower() in within)
    ]
