"""`reclra-compile report`: what is read of runs, what it comes to, and the page; no network, no names of folders."""

from __future__ import annotations

import html.parser
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from reclra_compile.cli.main import main
from reclra_compile.report.curves import panel_svg, panels_of
from reclra_compile.report.page import to_html
from reclra_compile.report.runs import read_runs
from reclra_compile.report.summary import Report, summary

SMALL = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10))
example_inputs = torch.zeros(4, 64)
"""
FLAGS = ("--epochs", "2", "--batch-size", "128", "--threads", "1")


def invoke(*arguments: str) -> Result:
    """The command's result; an exception other than an exit is a failure."""
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of two wirings and two seeds; nobody changes it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.py").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = invoke("train", "small.py", "--compare", "backprop", "--seeds", "2", "--run-dir", "runs", *FLAGS)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def runs(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs, with the working folder where they were made."""
    monkeypatch.chdir(made)
    return made / "runs"


@pytest.fixture
def old(tmp_path: Path, made: Path) -> Path:
    """A run as earlier versions left it: no run.json, no D(Θ) by region."""
    folder = tmp_path / "depth2" / "seed0"
    folder.mkdir(parents=True)
    before = made / "runs" / "depth2" / "seed0"
    (folder / "plan.txt").write_text((before / "plan.txt").read_text())
    lines = [json.loads(line) for line in (before / "log.jsonl").read_text().splitlines()]
    (folder / "log.jsonl").write_text("".join(json.dumps({**e, "regions": None}) + "\n" for e in lines))
    return tmp_path


class Tags(html.parser.HTMLParser):
    """Tags and attributes of a page, and that it closes what it opens."""

    VOID = ("meta", "link", "br", "input", "path", "rect", "circle", "polyline", "polygon", "line")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def count(self, name: str, kind: str) -> int:
        """Elements with this tag and one of their classes."""
        return sum(tag == name and kind in (a.get("class") or "").split() for tag, a in self.seen)


def test_one_page_of_all_runs(runs: Path) -> None:
    done = invoke("report", str(runs), "--out", "page.html", "--threads", "1")
    assert (done.exit_code, done.stdout) == (0, "report: page.html\n")
    assert "alignment: running small.py" in done.stderr
    text = Path("page.html").read_text(encoding="utf-8")
    page = Tags(text)
    assert page.count("svg", "plot") == 5 and page.count("svg", "heat") == 2 and page.count("svg", "angles") == 1
    assert "Sequential × depth2, backprop" in text and "± " in text
    assert all(f'class="pic{k}"' in text for k in (0, 1))
    assert "reclra-compile train small.py --compare backprop --epochs 2" in text
    assert torch.__version__ in text and "Test error (%)" in text
    for name in (str(runs.parent), str(Path.home()), *Path("/etc/hostname").read_text().split()[:1]):
        assert len(name) < 4 or name not in text
    assert not re.search(r"(src|href)=\"(?!#)|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    policy = next(a["content"] for tag, a in page.seen if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_json_says_what_the_page_shows(runs: Path) -> None:
    done = invoke("report", str(runs), "--json", "--threads", "1")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    ours, theirs = found["wirings"]
    assert (ours["wiring"], theirs["wiring"]) == ("depth2", "backprop") and ours["seeds"] == [0, 1]
    texts = [(runs / f"depth2/seed{seed}/log.jsonl").read_text() for seed in (0, 1)]
    logs = [[json.loads(line) for line in text.splitlines()] for text in texts]
    curve = ours["curves"]["test_error"]
    assert curve["each"] == [[e["test_error"] for e in log] for log in logs]
    assert curve["mean"][-1] == pytest.approx((logs[0][-1]["test_error"] + logs[1][-1]["test_error"]) / 2)
    assert ours["discrepancy"]["regions"] == ["0", "2", "4"]
    total = ours["curves"]["discrepancy"]["mean"][-1]
    assert sum(row[-1] for row in ours["discrepancy"]["values"]) == pytest.approx(total)
    assert all(a["end"] == pytest.approx([0.0, 0.0], abs=0.1) for a in theirs["alignment"])
    assert [a["region"] for a in ours["alignment"]] == ["0", "2", "4"]
    first = ours["alignment"][0]
    assert first["start"] != first["end"] and 1 < first["end"][0] < 179
    assert found["environments"][0]["torch"] == torch.__version__ and len(found["environments"]) == 1
    assert "host" not in json.dumps(found) and not list(runs.glob("*.html"))


def test_angles_are_those_that_diagnose_measures_at_the_start(runs: Path) -> None:
    """Before training, on a batch of the same size drawn with the same seed."""
    said = json.loads(invoke("report", str(runs / "depth2/seed0"), "--json", "--batches", "1").stdout)
    done = invoke("diagnose", "small.py", "--steps", "1", "--batch-size", "128", "--json")
    probe = json.loads(done.stdout)["steps"][0]
    angles = {r["name"]: r["angle"] for r in probe["regions"]}
    for row in said["wirings"][0]["alignment"]:
        assert row["start"] == pytest.approx([angles[row["region"]]], abs=1e-3)


def test_the_command_repeats_the_run(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = json.loads(invoke("report", str(runs), "--json", "--no-align").stdout)["commands"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(SMALL)
    done = invoke(*shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    for name in ("depth2/seed1", "backprop/seed0"):
        logs = [(folder / name / "log.jsonl").read_text().splitlines()[-1] for folder in (runs, tmp_path / "runs")]
        one, two = (json.loads(line) for line in logs)
        assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_without_the_model_there_is_a_note(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("report", str(runs), "--out", "page.html")
    assert done.exit_code == 0
    assert "note: Angles to backprop are left out: " in done.stdout and "(M001)" in done.stdout
    assert "Name the model with --model" in done.stdout
    text = Path("page.html").read_text(encoding="utf-8")
    assert Tags(text).count("svg", "angles") == 0 and "Angles to backprop are left out" in text
    given = invoke("report", str(runs / "backprop"), "-o", "page.html", "--model", str(runs.parent / "small.py"))
    assert given.stdout == "report: page.html\n"
    assert Tags(Path("page.html").read_text(encoding="utf-8")).count("svg", "angles") == 1


def test_runs_of_an_earlier_version(old: Path) -> None:
    done = invoke("report", str(old))
    assert done.exit_code == 0 and "This run has no run.json" in done.stdout
    assert "has no D(Θ) by region" in done.stdout and "do not remember how they were made" in done.stdout
    page = Tags((old / "report.html").read_text(encoding="utf-8"))
    assert page.count("svg", "plot") > 3 and page.count("svg", "heat") == 0


def test_an_unfinished_run_says_so(old: Path) -> None:
    about = {"format": 1, "settings": {"epochs": 9}, "wiring": "depth2", "seed": 0}
    (old / "depth2/seed0/run.json").write_text(json.dumps(about))
    done = invoke("report", str(old), "--no-align")
    assert "note: depth2, seed 0, is not finished: 2 of 9 epochs." in done.stdout


def _gone(folder: Path) -> None:
    (folder / "depth2/seed0/log.jsonl").unlink()


def _cut(folder: Path) -> None:
    (folder / "depth2/seed0/log.jsonl").write_text('{"epoch": 1}\n[1]\n')


def _other(folder: Path) -> None:
    (folder / "depth2/seed0/run.json").write_text("{")


def _plan(folder: Path) -> None:
    (folder / "depth2/seed0/plan.txt").write_text("no plan")


@pytest.mark.parametrize(
    ("change", "code"), [(_gone, "Y003"), (_cut, "Y004"), (_other, "Y004"), (_plan, "Y004")]
)
def test_damaged_runs(old: Path, change: Callable[[Path], None], code: str) -> None:
    change(old)
    done = invoke("report", str(old))
    assert (done.exit_code, f"error[{code}]" in done.stderr, "fix: " in done.stderr) == (2, True, True)
    assert not list(old.glob("*.html"))


def test_folders_without_runs(tmp_path: Path) -> None:
    for name in (".", "none", "file"):
        (tmp_path / "file").touch()
        done = invoke("report", str(tmp_path / name))
        assert (done.exit_code, "error[Y002]" in done.stderr) == (2, True)
    said = invoke("report", str(tmp_path), "--out", "page.svg").stderr
    assert "error[V002] page.svg: a report is a web page (.html); '.svg' is another format" in said


def test_names_cannot_become_code(old: Path) -> None:
    bad = '</script><script>alert(1)</script>"onload="x'
    about = {"format": 1, "settings": {"epochs": 2, bad: bad}, "wiring": bad, "seed": 0, "command": ["x", bad],
             "environment": {"torch": bad, "gpus": [bad]}, "data": {"name": bad}}  # fmt: skip
    (old / "depth2/seed0/run.json").write_text(json.dumps(about))
    text = to_html(summary(read_runs(old)))
    assert sum(tag == "script" for tag, _ in Tags(text).seen) == 2 and "<script>alert" not in text


def test_reading_runs_needs_no_torch(old: Path) -> None:
    code = ("import sys; from pathlib import Path; from reclra_compile.report.runs import read_runs; "
            "from reclra_compile.report.summary import summary; from reclra_compile.report.page import to_html; "
            "to_html(summary(read_runs(Path(sys.argv[1])))); assert 'torch' not in sys.modules")  # fmt: skip
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", code, str(old)], check=True, timeout=60, cwd=root)


def test_one_epoch_of_one_run_is_a_report(old: Path) -> None:
    log = old / "depth2/seed0/log.jsonl"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    report: Report = summary(read_runs(old / "depth2" / "seed0"))
    assert report.groups[0].wiring == "depth2" and all("nan" not in panel_svg(p) for p in panels_of(report))


@pytest.mark.slow
def test_the_page_in_a_browser(runs: Path, tmp_path: Path) -> None:
    """What keys and buttons do; nothing is fetched, no script fails, and nothing is wider than a telephone."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright; see the extra `browser`")
    plot, said = "[data-panel=test_error]", "figure:has([data-panel=test_error]) figcaption"
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser: install chromium")
    file, wrong = tmp_path / "page.html", []
    file.write_text(to_html(summary(read_runs(runs))), encoding="utf-8")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=60_000)
        page = browser.new_page(viewport={"width": 380, "height": 800}, color_scheme="light")
        page.on("console", lambda m: wrong.append(m.text))
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("request", lambda r: wrong.append(r.url) if r.url != file.as_uri() else None)
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
        page.focus(plot)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert re.match(r"epoch 1 · depth2 [\d.]+ ± [\d.]+ % · backprop [\d.]+", page.inner_text(said))
        page.click("[data-toggle='1'] >> nth=0")
        assert [page.is_visible(f"figure[data-wiring='{k}'] >> nth=0") for k in (0, 1)] == [True, False]
        page.hover(plot)
        assert "depth2" in page.inner_text(said) and "backprop" not in page.inner_text(said)
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before == "rgb(255, 255, 255)"
        page.click("[data-copy]")
        page.wait_for_selector("text=Copied")
        page.emulate_media(media="print")
        assert not page.is_visible("#theme") and page.is_visible("svg.heat >> nth=0")
        browser.close()
    assert not wrong
