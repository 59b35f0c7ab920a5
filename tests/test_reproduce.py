"""The paper's tables as files and commands: what is run, kept, resumed, printed and searched."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from reclra_compile.cli import reproduce_view
from reclra_compile.cli.main import main
from reclra_compile.errors import UserError
from reclra_compile.reproduce import pool, run, worker
from reclra_compile.reproduce.cases import Case, cases, chosen
from reclra_compile.reproduce.edit import write_row
from reclra_compile.reproduce.plans import command, planned, script
from reclra_compile.reproduce.pool import Store
from reclra_compile.reproduce.search import grid, points
from reclra_compile.reproduce.summary import Line, Spread, tally, verdict
from reclra_compile.reproduce.tables import load_table, shipped
from reclra_compile.spec.load import load_wiring
from reclra_compile.view.curves import Axis, Curve, Panel, curves_svg, value_axis

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "tests" / "tables" / "digits.yaml"
TABLES = ("figure2", "table1", "table2a", "table2b", "table3")


def invoke(*arguments: str | Path) -> Result:
    """A command in this process; an exception other than an exit is a failure."""
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def _is_worker(number: str) -> bool:
    """True for a worker that this process has started."""
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes()
        parent = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return False
    return b"reclra_compile.reproduce.worker" in words and parent == str(os.getpid())


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs happen in this process, one after the other; the list tells which."""
    ran: list[str] = []

    def one_by_one(todo: Any, store: Store | None, *, data_dir: str | None, device: str = "cpu", **_: Any) -> Any:
        for case in todo:
            ran.append(case.name)
            folder = store.checkpoint_folder(case) if store else None
            event = worker.answer(case, folder, data_dir, device, lambda event: None)
            if "result" in event and store is not None:
                store.keep(case, event["result"])
            yield case, event

    monkeypatch.setattr(run, "run_all", one_by_one)
    monkeypatch.setattr("reclra_compile.reproduce.search.run_all", one_by_one)
    return ran


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The table of digits in a folder of its own, its rows and its trials to be changed by a test."""
    file = tmp_path / "digits.yaml"
    file.write_text(DIGITS.read_text(encoding="utf-8").replace("../../examples/", ""), encoding="utf-8")
    return file


# the files that come with the package


def test_every_table_of_the_paper_is_there() -> None:
    assert tuple(shipped()) == TABLES


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("scale", ["smoke", "hours", "paper"])
def test_models_and_wirings_of_every_row_exist(name: str, scale: Any) -> None:
    table = load_table(name)
    made = cases(table, scale, table.spec.rows, seeds=1)
    assert len(made) == len(table.spec.rows)
    for case in made:
        assert not case.problem, case.problem
        file, _, builder = case.model.partition(":")
        source = Path(file).read_text(encoding="utf-8")
        assert f"def {builder or 'build_model'}(" in source or "build_model =" in source
        load_wiring(case.wiring)


def test_table_1_has_the_papers_numbers_and_held_out_images() -> None:
    table = load_table("table1")
    numbers = {(r.row, r.data): (r.paper.train, r.paper.test) for r in table.spec.rows}
    assert numbers["BP", "mnist"] == (0.00, 1.48)
    assert numbers["E-Prop", "fashion_mnist"] == (16.56, 20.97)
    assert numbers["rLRA, sign", "fashion_mnist"] == (12.42, 14.88)
    assert numbers["BP, relu", "mnist"] == (None, None)
    assert len(numbers) == 24
    made = cases(table, "hours", table.spec.rows)
    assert {c.validation for c in made} == {2000}
    assert len(made) == 24 * 3


def test_table_2_follows_the_papers_schedule_and_preprocessing() -> None:
    for name in ("table2a", "table2b"):
        table = load_table(name)
        for case in cases(table, "paper", table.spec.rows, seeds=1):
            s = case.settings
            assert (s["lr"], s["schedule"], s["lr_end"], s["warmup"]) == (1e-2, "polynomial", 1e-5, 40)
            assert (case.preprocess, case.validation) == ("gcn_zca", 5000)
            assert case.images == 0


# faults of a table file


def test_every_fault_of_a_table_file_is_reported_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "version: 1\ntable: t\ntitle: T\nrows:\n  - row: A\n    data: digits\n    model: m.py\n    wiring: depth1\n"
        "    settings: {lr: -1, batch: 3}\n  - {row: B, data: digits, wiring: depth1}\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError) as caught:
        load_table(file)
    found = [(f.code, f.where and f.where.line, f.message) for f in caught.value.faults]
    assert [(code, line) for code, line, _ in found] == [("R002", 9), ("R002", 9), ("R002", 10)]
    assert "'lr'" in found[0][2] and "unknown key 'batch'" in found[1][2] and "'model' is missing" in found[2][2]
    assert caught.value.faults[1].fix == "did you mean 'batch_size'?"


def test_unknown_tables_and_rows_are_refused(tmp_path: Path) -> None:
    result = invoke("reproduce", "table4")
    assert result.exit_code == 2 and "R003" in result.output and "did you mean 'table" in result.output
    result = invoke("reproduce", DIGITS, "--only", "BQ", "--data", "mnist", "--run-dir", tmp_path)
    assert result.exit_code == 2 and result.output.count("R003") == 2


def test_a_row_that_is_there_twice_is_refused(table: Path) -> None:
    table.write_text(table.read_text(encoding="utf-8").replace("row: Later", "row: BP"), encoding="utf-8")
    with pytest.raises(UserError, match="is there twice"):
        load_table(table)


def test_without_a_data_folder_the_fix_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECLRA_DATA", raising=False)
    result = invoke("reproduce", "table1", "--run-dir", tmp_path / "run")
    assert result.exit_code == 2 and result.output.count("D002") == 2
    assert not (tmp_path / "run").exists()


# running


def test_a_table_is_run_written_and_not_run_again(tmp_path: Path, inside: list[str]) -> None:
    folder = tmp_path / "run"
    result = invoke("reproduce", DIGITS, "--seeds", "2", "--run-dir", folder)
    assert len(inside) == 4
    assert result.exit_code == 2  # the row whose wiring does not exist; the others have gone on
    assert "there is no shipped wiring 'not_yet_there'" in result.output
    page = (folder / "digits.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("| BP |"))
    assert re.match(r"\| BP \| digits \| [\d.]+ ± [\d.]+ \(2 seeds\) \| 1\.48 \| \+[\d.]+ \| .* \| 0\.00 \| 2 \|", line)
    assert re.search(r"\| rLRA, relu \| .* \| 99\.00 \| -[\d.]+ \|.*at or below", page)
    data = json.loads((folder / "digits.json").read_text(encoding="utf-8"))
    row = data["rows"][0]
    assert row["seeds"] == [0, 1]
    assert row["gap"] == pytest.approx(row["test_error"]["mean"] - 1.48)
    assert row["settings"]["lr"] == 0.001 and row["images"] == {"train": 1237, "valid": 200, "test": 360}
    assert not list(folder.glob("checkpoints/*")), "a finished run keeps no checkpoint"

    again = invoke("reproduce", DIGITS, "--seeds", "2", "--run-dir", folder)
    assert again.exit_code == 2 and "R004" in again.output
    assert len(inside) == 4
    again = invoke("reproduce", DIGITS, "--seeds", "3", "--run-dir", folder, "--resume", "--only", "BP")
    assert inside[4:] == ["BP-digits-seed2"]
    kept = json.loads((folder / "digits.json").read_text(encoding="utf-8"))["rows"]
    assert [r["row"] for r in kept] == ["BP", "rLRA, relu"], "rows that were not asked for stay in the table"


def test_changed_settings_are_run_again_and_others_are_not(table: Path, tmp_path: Path, inside: list[str]) -> None:
    folder = tmp_path / "run"
    invoke("reproduce", table, "--run-dir", folder)
    inside.clear()
    table.write_text(table.read_text(encoding="utf-8").replace("{lr: 0.001}", "{lr: 0.004}"), encoding="utf-8")
    invoke("reproduce", table, "--run-dir", folder, "--resume")
    assert inside == ["BP-digits-seed0"]


def test_the_test_images_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases(load_table(DIGITS), "smoke", load_table(DIGITS).spec.rows[:1])[0]
    looked: list[int] = []
    measured = worker.Run.measured

    def counted(self: Any, split: Any) -> Any:
        looked.append(len(split[1]))
        return measured(self, split)

    monkeypatch.setattr(worker.Run, "measured", counted)
    result = worker.run_case(case, None, None, "cpu", lambda event: None)
    assert looked == [1237, 200, 1237, 200, 360]  # training and held-out images after each of two epochs; then the test
    assert result["test_error"] is not None and all(e["test_error"] is None for e in result["history"])


def test_a_stopped_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    case = cases(load_table(DIGITS), "hours", load_table(DIGITS).spec.rows[1:2])[0]
    whole = worker.run_case(case, None, None, "cpu", lambda event: None)

    def stop(event: dict[str, Any]) -> None:
        if event["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.run_case(case, tmp_path, None, "cpu", stop)
    epochs: list[int] = []
    result = worker.run_case(case, tmp_path, None, "cpu", lambda event: epochs.append(event["epoch"]))
    assert epochs == [2, 3]
    assert (result["test_error"], result["train_error"]) == (whole["test_error"], whole["train_error"])
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    result = worker.run_case(case, tmp_path, None, "cpu", lambda event: None)
    assert result["test_error"] == whole["test_error"]


@pytest.mark.slow
def test_a_killed_command_loses_no_finished_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [sys.executable, "-m", "reclra_compile.cli.main", "reproduce", str(DIGITS), "--run-dir", str(folder),
             "--jobs", "1", "--seeds", "40", "--only", "BP"]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    results = folder / "results"
    while process.poll() is None and len(list(results.glob("*.json"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in said, said
    finished = sorted(results.glob("*.json"))
    assert 2 <= len(finished) < 40
    for file in finished:
        assert json.loads(file.read_text(encoding="utf-8"))["test_error"] > 0
    again = json.loads(invoke("reproduce", DIGITS, "--run-dir", folder, "--resume", "--seeds", "40", "--only", "BP",
                              "--dry-run", "--json").output)  # fmt: skip
    assert (again["finished"], len(again["runs"])) == (len(finished), 40 - len(finished))


def test_a_run_that_dies_ends_its_row_only(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    model = (ROOT / "examples" / "mlp_digits.py").read_text(encoding="utf-8")
    (folder / "dies.py").write_text(model + "\n\ndef dies():\n    import os\n\n    os._exit(3)\n", encoding="utf-8")
    text = DIGITS.read_text(encoding="utf-8").replace("../../examples/mlp_digits.py", "dies.py:dies")
    (folder / "digits.yaml").write_text(text, encoding="utf-8")
    table = load_table(folder / "digits.yaml")
    made = cases(table, "smoke", table.spec.rows[:2])
    events = {case.row: event for case, event in pool.run_all(made, Store(tmp_path), jobs=1, data_dir=None)}
    assert "ended with status 3" in events["BP"]["faults"][0]["message"]
    assert events["rLRA, relu"]["result"]["epochs"] == 2
    assert not [p for p in os.listdir("/proc") if p.isdigit() and _is_worker(p)], "no worker outlives the command"


def test_an_unexpected_error_ends_its_row_only(tmp_path: Path, inside: list[str], table: Path) -> None:
    text = table.read_text(encoding="utf-8").replace("wiring: backprop", "wiring: {version: 1, pathways: []}")
    table.write_text(text, encoding="utf-8")
    result = invoke("reproduce", table, "--run-dir", tmp_path / "run")
    assert result.exit_code == 2 and "'pathways' is an empty list" in result.output
    assert inside == ["rLRA-relu-digits-seed0"]


def test_a_dry_run_runs_nothing(tmp_path: Path, inside: list[str]) -> None:
    result = invoke("reproduce", DIGITS, "--dry-run", "--run-dir", tmp_path, "--scale", "hours")
    assert result.exit_code == 0 and "4 runs to make, 0 finished" in result.output
    assert "BP, digits, seed 1: mlp_digits.py, backprop" in result.output
    assert not inside and not list(tmp_path.iterdir())


# what decides a result


def test_the_digest_changes_with_everything_that_decides_the_result(table: Path) -> None:
    def digest(old: str = "", new: str = "") -> str:
        table.write_text(text.replace(old, new), encoding="utf-8")
        return cases(load_table(table), "smoke", load_table(table).spec.rows[1:2])[0].digest

    text = table.read_text(encoding="utf-8")
    first = digest()
    changes = (("lr: 0.002", "lr: 0.003"), ("{digits: 200}", "{digits: 100}"), ("epochs: 2", "epochs: 4"),
               ("wiring: depth2", "wiring: depth1"), ("seeds: 1, epochs: 2", "epochs: 2, images: 500"))  # fmt: skip
    assert len({first, *(digest(*change) for change in changes)}) == 1 + len(changes)
    assert digest("found: by hand", "found: by chance") == first
    assert digest("# A table", "# The table") == first


def test_every_row_has_one_result_before_any_has_two() -> None:
    table = load_table(DIGITS)
    made = cases(table, "hours", table.spec.rows)
    assert [c.seed for c in made] == [0, 0, 0, 1, 1, 1]


def test_parts_of_a_wiring_can_be_changed_by_a_row(table: Path) -> None:
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("    found: by hand", "    change: {target: {beta: 0.25}}"), encoding="utf-8")
    loaded = load_table(table)
    wiring = load_wiring(cases(loaded, "smoke", loaded.spec.rows[1:2])[0].wiring).wiring
    assert (wiring.target.beta, wiring.target.normalize, wiring.name) == (0.25, True, "depth2")


def test_rows_are_chosen_by_name_and_data_set() -> None:
    table = load_table("table1")
    assert [(r.row, r.data) for r in chosen(table, ["rlra, TANH"], ["mnist"])] == [("rLRA, tanh", "mnist")]


def test_spread_and_verdict() -> None:
    assert str(Spread((1.0, 2.0, 3.0))) == "2.00 ± 1.00"
    assert str(Spread((1.5,))) == "1.50" and Spread().mean is None
    assert [verdict(g) for g in (None, -0.2, 0.004, 0.5, 1.5)] == [
        "not in the paper", "at or below", "at or below", "within 1 point (+0.50)", "short by 1.50"
    ]  # fmt: skip


# figure 2


def test_a_figure_is_drawn_by_epoch_and_by_seconds(table: Path, tmp_path: Path, inside: list[str]) -> None:
    text = table.read_text(encoding="utf-8").replace("note: A table", "kind: curves\nnote: A table")
    table.write_text(text, encoding="utf-8")
    invoke("reproduce", table, "--run-dir", tmp_path / "run", "--seeds", "2")
    svg = (tmp_path / "run" / "digits.svg").read_text(encoding="utf-8")
    assert "digits, by epoch" in svg and "digits, by seconds" in svg
    assert svg.count("<polyline") == 4 and svg.count("<polygon") == 4
    assert "](digits.svg)" in (tmp_path / "run" / "digits.md").read_text(encoding="utf-8")


def test_an_axis_is_logarithmic_where_values_span_much() -> None:
    assert value_axis((1.5, 90.0)).logarithmic and not value_axis((10.0, 20.0)).logarithmic
    assert not value_axis((0.0, 90.0)).logarithmic
    axis = Axis(1.0, 100.0, True)
    assert axis.at(10.0) == pytest.approx(0.5) and axis.at(0.0) == 0.0
    assert axis.ticks() == pytest.approx([1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100])
    assert Axis(0.0, 9.0, False).ticks() == [0, 2, 4, 6, 8]


def test_a_constant_curve_can_be_drawn() -> None:
    svg = curves_svg("t", [Panel("p", "x", "y", (Curve("a<b", (1.0, 2.0), (5.0, 5.0)),))], 1)
    assert "a&lt;b" in svg and "nan" not in svg


# table 3


def test_imagenet_rows_get_commands_that_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    table = load_table("table3")
    rows = [r for r in table.spec.rows if r.row in ("CNN, BP", "ResNet, rLRA")]
    plans = planned(table, rows)
    assert [p.problem for p in plans] == ["", ""]
    by_name = {p.row.row: p for p in plans}
    assert by_name["CNN, BP"].ratio == pytest.approx(1.0)
    assert by_name["CNN, BP"].hours(20.0) == pytest.approx(by_name["CNN, BP"].hours(10.0) / 2)
    called: list[dict[str, Any]] = []
    monkeypatch.setattr(main.commands["train"], "callback", lambda **options: called.append(options))
    for p in plans:
        assert invoke(*command(p, "/data", "runs")[1:]).exit_code == 0
    assert [(c["data"], c["wiring"], c["epochs"], c["top5"]) for c in called] == [
        ("imagefolder", "backprop", 90, True), ("imagefolder", "blocks", 90, True)
    ]  # fmt: skip
    text = script(table, plans, None, 10.0, "runs")
    checked = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    assert text.count("\ngo ") == 2 and "the paper has top-1 30.78, top-5 12.04 %; about" in text


# the search


def test_a_search_keeps_its_trials_and_does_not_repeat_them(table: Path, inside: list[str]) -> None:
    words = ("search", table, "--row", "BP", "--data", "digits", "--scale", "smoke")
    result = invoke(*words, "--grid", "lr=1e-3,4e-3")
    assert result.exit_code == 0 and len(inside) == 2
    trials = [json.loads(line) for line in (table.parent / "trials" / "digits.jsonl").read_text().splitlines()]
    assert [t["point"] for t in trials] == [{"lr": 0.001}, {"lr": 0.004}]
    assert all("test_error" not in t and t["valid_error"] > 0 for t in trials)
    result = invoke(*words, "--grid", "lr=1e-3,4e-3,8e-3", "--json")
    assert len(inside) == 3
    few = invoke(*words, "--grid", "lr=1e-3", "--images", "300", "--json")
    assert [t["images"]["train"] for t in json.loads(few.output)["trials"]] == [300]
    ranked = json.loads(result.output)["trials"]
    assert len(ranked) == 3 and [t["mean"] for t in ranked] == sorted(t["mean"] for t in ranked)


def test_a_search_never_reads_the_test_images(table: Path, inside: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    split = worker.DataSet.split

    def guarded(self: Any, part: str, example: Any) -> Any:
        assert part != "test" or self.count("test") == 2, "only the trial of two images may read test images"
        return split(self, part, example)

    monkeypatch.setattr(worker.DataSet, "split", guarded)
    result = invoke("search", table, "--row", "BP", "--data", "digits", "--scale", "smoke", "--json")
    assert json.loads(result.output)["trials"][0]["mean"] > 0


def test_the_best_settings_are_written_into_the_row_alone(table: Path, inside: list[str]) -> None:
    before = table.read_text(encoding="utf-8")
    result = invoke("search", table, "--row", "BP", "--data", "digits", "--scale", "smoke", "--write",
                    "--grid", "lr=1e-4,4e-3", "--grid", "target.kappa=2")  # fmt: skip
    assert result.exit_code == 0
    after = table.read_text(encoding="utf-8")
    gone = [line for line in before.splitlines() if line not in after.splitlines()]
    assert gone == ["    settings: {lr: 0.001}  # the row's own"]
    assert "    settings: {lr: 0.004}  # the row's own" in after
    row = load_table(table).spec.rows[0]
    assert row.change == {"target": {"kappa": 2}}
    assert re.fullmatch(r"best of 2 trials at scale smoke on 200 held-out images: [\d.]+ %", row.found)


def test_a_failed_trial_is_kept_as_failed(table: Path, inside: list[str]) -> None:
    result = invoke("search", table, "--row", "BP", "--data", "digits", "--scale", "smoke", "--json",
                    "--grid", "lr=1e38", "--grid", "optimizer=sgd")  # fmt: skip
    (trial,) = json.loads(result.output)["trials"]
    assert trial["mean"] is None and "T010" in trial["failed"][0]
    result = invoke("search", table, "--row", "BP", "--data", "digits", "--scale", "smoke", "--write",
                    "--grid", "lr=1e38", "--grid", "optimizer=sgd")  # fmt: skip
    assert result.exit_code == 2 and "R007" in result.output
    assert len(inside) == 1


def test_a_trial_that_died_is_run_again_and_counts_once(table: Path, inside: list[str]) -> None:
    words = ("search", table, "--row", "BP", "--data", "digits", "--scale", "smoke", "--json")
    invoke(*words)
    file = table.parent / "trials" / "digits.jsonl"
    died = json.loads(file.read_text(encoding="utf-8")) | {"problem": "[R005] killed", "valid_error": None}
    file.write_text(json.dumps(died) + "\n", encoding="utf-8")
    (trial,) = json.loads(invoke(*words).output)["trials"]
    assert len(inside) == 2 and trial["mean"] > 0 and not trial["failed"]


def test_faults_of_a_grid_are_reported_together() -> None:
    with pytest.raises(UserError) as caught:
        grid(["lr=1e-3,2e-3", "rl=3", "beta2", "lr=1", "warmup=3..1"])
    assert [f.code for f in caught.value.faults] == ["R006"] * 4
    with pytest.raises(UserError, match="--random N"):
        points(grid(["lr=1e-4..1e-2"]), None, 0)


def test_a_value_that_no_setting_has_is_refused(table: Path) -> None:
    result = invoke("search", table, "--row", "BP", "--data", "digits", "--grid", "lr=-1", "--grid", "wiring=nowhere")
    assert result.exit_code == 2 and "R006" in result.output and "lr=-1" in result.output


def test_grids_and_random_points() -> None:
    choices = grid(["lr=1e-3,2e-3", "wiring=depth1,depth2", "target.beta=0.1"])
    assert points(choices, None, 0)[1] == {"lr": 1e-3, "wiring": "depth2", "target.beta": 0.1}
    assert len(points(choices, None, 0)) == 4
    drawn = points(grid(["lr=1e-4..1e-2", "batch_size=32,64"]), 50, 1)
    assert drawn == points(grid(["lr=1e-4..1e-2", "batch_size=32,64"]), 50, 1)
    assert all(1e-4 <= p["lr"] <= 1e-2 for p in drawn) and {p["batch_size"] for p in drawn} == {32, 64}
    assert 10 < sum(p["lr"] < 1e-3 for p in drawn) < 40, "log-uniform: half of them below the middle decade"


def test_settings_on_lines_of_their_own_are_not_touched(table: Path) -> None:
    text = table.read_text(encoding="utf-8").replace("settings: {lr: 0.001}", "settings:\n      lr: 0.001")
    table.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="R007"):
        write_row(table, "BP", "digits", {"settings": {"lr": 0.1}})
    assert table.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", [t for t in TABLES if t != "table3"])
def test_a_search_can_write_every_shipped_row(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.yaml"
    file.write_text(shipped()[name].read_text(encoding="utf-8"), encoding="utf-8")
    before = yaml.safe_load(file.read_text(encoding="utf-8"))
    values = {"settings": {"lr": 1e-5, "epochs": 3}, "found": "it's: here # so"}
    for row in before["rows"][::5]:
        write_row(file, row["row"], row["data"], values)
        row |= values
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == before


def test_a_damaged_file_of_trials_is_named(table: Path) -> None:
    (table.parent / "trials").mkdir()
    (table.parent / "trials" / "digits.jsonl").write_text('{"row": "BP"}\n')
    result = invoke("search", table, "--row", "BP", "--data", "digits", "--grid", "lr=1e-3")
    assert result.exit_code == 2 and "R008" in result.output and "digits.jsonl:1" in result.output


def test_the_bar_counts_runs_and_epochs() -> None:
    case: Case = cases(load_table(DIGITS), "smoke", load_table(DIGITS).spec.rows[:1])[0]
    bar = reproduce_view.Bar(2, quiet=True)
    bar.hear(case, {"epoch": 1, "epochs": 2})
    assert bar.progress.tasks[0].completed == pytest.approx(0.5)
    within = {"epoch": 1, "epochs": 2, "taken": 15, "total": 20, "loss": 0.5, "discrepancy": 0.01, "valid_error": 3.0,
              "seconds": 9.0}  # fmt: skip
    bar.hear(case, within)
    assert bar.progress.tasks[0].completed == pytest.approx(0.75)
    (line,) = bar.progress.lines
    assert line.endswith(": epoch 2/2  loss 0.5000  D(Θ) 1.00e-02  valid 3.00 %  0:03 left")
    bar.hear(case, {"faults": [{"code": "R005", "message": "m", "fix": ""}]})
    assert bar.progress.tasks[0].completed == 1 and bar.progress.lines == []


def test_a_row_may_name_rules_that_its_models_file_registers(tmp_path: Path, inside: list[str]) -> None:
    wiring = Path(load_table("table1").model("own_rule.py")).with_suffix(".yaml")
    rows = [{"row": "own", "data": "digits", "model": "own_rule.py", "wiring": str(wiring)}]
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "table": "own", "title": "Own", "rows": rows,
                                    "scales": {"smoke": {"seeds": 1, "epochs": 1}}}), encoding="utf-8")  # fmt: skip
    result = invoke("reproduce", file, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "run" / "results").glob("*.json"))) == 1


def test_a_table_that_names_no_such_preprocessing_is_refused(table: Path) -> None:
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("wiring: backprop\n", "wiring: backprop\n    augment: shift\n"), encoding="utf-8")
    with pytest.raises(UserError, match=r"R002.*augment"):
        load_table(table)


def test_rows_without_all_their_seeds_are_counted_apart() -> None:
    row = load_table(DIGITS).spec.rows[1]
    record = {"case": {"seed": 0}, "test_error": 1.0, "valid_error": 1.0, "train_error": 0.0}
    whole, part, none = (Line(row, (record,) * n, 2) for n in (2, 1, 0))
    said = tally([whole, part, none])
    assert said.startswith("1 of 1 rows at or below the paper's error, 0 within 1 point, 0 short")
    assert said.endswith("1 incomplete, 1 without a result")
