"""Reproducing a table: what has to be run, what is finished, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reclra_compile.data.sets import load
from reclra_compile.errors import DataError, Fault, Location, ReclraError, UserError
from reclra_compile.reproduce.cases import Case, cases
from reclra_compile.reproduce.pool import Event, Store, run_all
from reclra_compile.reproduce.schema import Row, Scale
from reclra_compile.reproduce.summary import Line, Record, grouped
from reclra_compile.reproduce.tables import Table

Key = tuple[str, str]


@dataclass
class Reproduction:
    """Some rows of a table at a scale; finished runs are kept in `store`."""

    table: Table
    scale: Scale
    rows: Sequence[Row]
    store: Store
    seeds: int | None = None
    records: dict[Key, list[Record]] = field(default_factory=dict)
    problems: dict[Key, list[str]] = field(default_factory=dict)
    wanted: dict[Key, int] = field(default_factory=dict)
    todo: list[Case] = field(default_factory=list)
    reused: int = 0

    def prepare(self, resume: bool) -> None:
        """Sort runs into finished ones, ones that cannot be run, and ones to run.

        Raises UserError (R004) where the folder holds earlier results and `resume` is false.
        """
        if self.store.used and not resume:
            raise UserError(
                Fault("R004", "results of an earlier run are in this folder", Location(str(self.store.folder)),
                      "go on with --resume, or name another --run-dir")
            )
        for case in cases(self.table, self.scale, self.others, self.seeds):
            record = None if case.problem else self.store.read(case)
            if record is not None:
                self.wanted[case.row, case.data] = self.wanted.get((case.row, case.data), 0) + 1
                self.records.setdefault((case.row, case.data), []).append(record)
        for case in cases(self.table, self.scale, self.rows, self.seeds):
            key = case.row, case.data
            self.wanted[key] = self.wanted.get(key, 0) + 1
            if case.problem:
                self.problems.setdefault(key, []).append(case.problem)
                continue
            record = self.store.read(case)
            if record is None:
                self.todo.append(case)
            else:
                self.reused += 1
                self.records.setdefault(key, []).append(record)

    def check_data(self, data_dir: str | None) -> None:
        """Raise DataError with all faults of the data sets that are to be read."""
        faults: list[Fault] = []
        for name in dict.fromkeys(case.data for case in self.todo):
            try:
                load(name, data_dir)
            except ReclraError as error:
                faults += error.faults
        if faults:
            raise DataError(faults)

    def run(self, jobs: int, data_dir: str | None, device: str, threads: int) -> Iterator[tuple[Case, Event]]:
        """Run what is to be run; yields what happens."""
        for case, event in run_all(
            self.todo, self.store, jobs=jobs, data_dir=data_dir, device=device, threads=threads
        ):
            key = case.row, case.data
            if "result" in event:
                self.records.setdefault(key, []).append(event["result"])
            elif "faults" in event:
                said = "; ".join(f"[{f['code']}] {f['message']}" for f in event["faults"])
                self.problems.setdefault(key, []).append(said)
            yield case, event

    @property
    def others(self) -> list[Row]:
        """The table's rows that were not chosen; what is finished of them stays in the table that is written."""
        return [row for row in self.table.spec.rows if row not in self.rows]

    def lines(self, chosen_only: bool = False) -> list[Line]:
        """The table's lines as far as they are known: of the chosen rows, and of others that are finished."""
        rows = [r for r in self.table.spec.rows if r in self.rows or (r.row, r.data) in self.records]
        return grouped(self.rows if chosen_only else rows, self.records, self.problems, self.wanted)


def default_folder(table: Table, scale: Scale) -> Path:
    """Where a table's runs are kept where nothing else is said."""
    return Path("runs") / "reproduce" / f"{table.spec.table}-{scale}"
