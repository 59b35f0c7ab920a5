"""The command line: what every command prints and writes, and how it answers mistakes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from reclra_compile import __version__
from reclra_compile.cli import report, train_options
from reclra_compile.cli.main import main
from reclra_compile.cli.tables import fold
from reclra_compile.data import augment, imagefolder, preprocess, sets
from reclra_compile.ir import Plan
from reclra_compile.spec.load import json_schema, shipped

ROOT = Path(__file__).resolve().parent.parent
MODEL = str(ROOT / "examples" / "mlp_digits.py")
COMMANDS = ("compile", "train", "diagnose", "check", "wirings", "schema")

DEEP = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query_projection = nn.Linear(16, 16)
        self.feed_forward_output = nn.Linear(16, 16)

    def forward(self, x):
        return x + self.feed_forward_output(torch.relu(self.query_projection(x)))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder_layers = nn.ModuleList(Block() for _ in range(2))
        self.classification_head = nn.Linear(16, 10)

    def forward(self, x):
        for block in self.encoder_layers:
            x = block(x)
        return self.classification_head(x)

model = Net()
example_inputs = torch.zeros(4, 16)
print("printed by the model's file")
"""


def run(*arguments: str) -> Result:
    """A command in this process; an exception other than an exit is a failure."""
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def shell(*arguments: str, code: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a new interpreter."""
    head = ["-c", code] if code else ["-m", "reclra_compile"]
    return subprocess.run(
        [sys.executable, *head, *arguments], capture_output=True, text=True, timeout=120, encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a model of long names in it."""
    (tmp_path / "deep.py").write_text(DEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# help, version and usage


def test_no_arguments_print_help() -> None:
    result = run()
    assert result.exit_code == 0
    assert result.stdout == run("--help").stdout


def test_help_teaches_by_example() -> None:
    text = run("-h").stdout
    assert all(f"\n  {name}" in text for name in COMMANDS)
    assert "reclra-compile train examples/mlp_digits.py --compare backprop" in text
    assert "`example_inputs`" in text
    assert max(map(len, text.splitlines())) <= 90
    assert "..." not in text.partition("Wire a model:")[2].partition("Try first:")[0], "no description is cut"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_each_command_shows_an_example(command: str, flag: str) -> None:
    result = run(command, flag)
    assert result.exit_code == 0
    assert "\n  reclra-compile " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_version() -> None:
    assert run("--version").stdout == f"reclra-compile, version {__version__}\n"


def test_module_is_the_command() -> None:
    done = shell("--version")
    assert (done.returncode, done.stdout) == (0, f"reclra-compile, version {__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["wirings"], ["check", "depth2"], ["schema"],
                                       ["explain", "W003"]])  # fmt: skip
def test_light_commands_import_no_torch(arguments: list[str]) -> None:
    heavy = ("torch", "networkx", "sklearn", "numpy")
    heavy += ("pydantic", "yaml", "rich.console") if "--help" in arguments else ()
    code = (
        "import sys\nfrom reclra_compile.cli.main import main\n"
        "main(sys.argv[1:], standalone_mode=False) if '--help' not in sys.argv else None\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('loaded:', [m for m in {heavy!r} if m in sys.modules])"
    )
    done = shell(*arguments, code=code)
    assert done.stdout.endswith("loaded: []\n"), done.stdout + done.stderr


def test_misspelt_command_is_not_taken_for_a_model() -> None:
    result = run("trian", MODEL)
    assert result.exit_code == 2
    assert "there is no command 'trian'; did you mean 'train'?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile"], "Missing argument 'MODEL'"),
        (["train"], "Missing argument 'MODEL'"),
        (["check"], "Missing argument 'WIRING'"),
        ([MODEL, "--nonsense"], "No such option"),
        ([MODEL, "extra"], "unexpected extra argument"),
        ([MODEL, "--out", "."], "is a directory"),
        (["train", MODEL, "--epochs", "0"], "0 is not in the range x>=1"),
        (["train", MODEL, "--epochs", "many"], "'many' is not a valid integer"),
        (["train", MODEL, "--lr", "0"], "0.0 is not in the range x>0"),
        (["train", MODEL, "--batch-size", "-1"], "-1 is not in the range x>=1"),
        (["train", MODEL, "--optimizer", "sgdm"], "'sgdm' is not one of"),
        (["train", MODEL, "--data", "imagenet"], "'imagenet' is not one of"),
        (["train", MODEL, "--seed", "-1"], "-1 is not in the range x>=0"),
        (["train", MODEL, "--threads", "0"], "0 is not in the range x>=1"),
        (["train", MODEL, "--run-dir", MODEL], "is a file"),
    ],
)
def test_bad_usage(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "error[I003]: " in result.stderr and "Usage: main " in result.stderr and " --help` says" in result.stderr
    assert result.stdout == ""
    with_json = run(*arguments, "--json")
    assert with_json.exit_code == 2 and with_json.stderr == ""
    (fault,) = json.loads(with_json.stdout)["errors"]
    assert fault["code"] == "I003" and message in fault["message"]


def test_choices_of_data_are_those_that_can_be_read() -> None:
    assert (*sets.NAMES, imagefolder.ImageFolder.name) == train_options.DATA
    assert train_options.PREPROCESS == preprocess.KINDS
    assert train_options.AUGMENT == augment.KINDS


# compile


@pytest.mark.parametrize("before", [[], ["compile"]])
def test_compile_reports_every_part(before: list[str]) -> None:
    result = run(*before, MODEL, "--wiring", "depth2")
    assert result.exit_code == 0
    text = result.stdout
    for part in ("6 regions, for a batch of 32", "5 error pathways", "4 waves", "predicted FLOPs of one step"):
        assert part in text
    assert "lra β=0.01" in text
    assert "kolen_pollack" in text
    assert "303 kB of parameters, 207 kB of error synapses" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 80


def test_options_may_come_before_the_model() -> None:
    assert run("-w", "depth1", MODEL).stdout == run(MODEL, "-w", "depth1").stdout


def test_default_wiring_is_depth2() -> None:
    assert run(MODEL).stdout == run(MODEL, "--wiring", "depth2").stdout


def test_attribute_selects_a_builder() -> None:
    result = run(f"{ROOT / 'examples' / 'mlp_mnist.py'}:tanh", "--json")
    assert [r["phi"] for r in json.loads(result.stdout)["regions"]] == ["tanh"] * 5 + ["identity"]


def test_package_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tests" / "faults" / "model")
    report_ = json.loads(run("package.net:Net", "--json").stdout)
    assert report_["model"] == "Net"
    assert [r["name"] for r in report_["regions"]] == ["fc", "out"]
    assert run("package.net:Net").exit_code == 0, "a package can be loaded again"


def test_json_report() -> None:
    report_ = json.loads(run(MODEL, "--json").stdout)
    assert {"regions", "pathways", "waves", "placement", "cost", "warnings", "training", "version"} <= set(report_)
    assert report_["waves"] == [["out"], ["fc5", "fc3"], ["fc4", "fc2"], ["fc1"]]
    assert report_["placement"] == dict.fromkeys(("fc1", "fc2", "fc3", "fc4", "fc5", "out"), "device0")
    assert {"name", "op", "phi", "shape", "parameters", "flops", "wave"} <= set(report_["regions"][0])
    assert {"from", "to", "kernel", "synapses", "wave"} <= set(report_["pathways"][0])
    assert report_["cost"]["ratio"] == pytest.approx(report_["cost"]["flops"] / report_["cost"]["backprop_flops"])


def test_json_is_all_that_is_printed(folder: Path) -> None:
    result = run("deep.py", "--json", "--out", "a.plan")
    assert json.loads(result.stdout)["model"] == "Net"
    assert "printed by the model's file" in result.stderr


def test_out_writes_a_plan_that_parses_back(folder: Path) -> None:
    result = run(MODEL, "-w", "depth1", "--out", "net.plan")
    text = (folder / "net.plan").read_text(encoding="utf-8")
    plan = Plan.parse(text)
    assert str(plan) == text
    assert plan.name == "depth1"
    assert "plan written to net.plan" in result.stdout
    assert (folder / "net.plan").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_out_can_be_a_pipe() -> None:
    done = shell(MODEL, "--out", "/dev/stdout", "--json")
    assert done.returncode == 0
    assert "reclra" in done.stdout.splitlines()[0]


@pytest.mark.parametrize("suffix", ["html", "svg", "dot", "png"])
def test_graph(folder: Path, suffix: str) -> None:
    if suffix == "png" and importlib.util.find_spec("resvg_py") is None:
        pytest.skip("needs resvg-py")
    result = run(MODEL, "--graph", f"errors.{suffix}")
    assert result.exit_code == 0, result.stderr
    starts = {"html": b"<!doctype html>", "svg": b"<svg", "dot": b"digraph", "png": b"\x89PNG"}
    assert (folder / f"errors.{suffix}").read_bytes().startswith(starts[suffix])
    assert f"picture written to errors.{suffix}" in result.stdout


def test_files_that_cannot_be_written_are_reported_together(folder: Path) -> None:
    result = run(MODEL, "--out", "none/net.plan", "--graph", "none/a.svg")
    assert result.exit_code == 2
    assert "error[F001] none/net.plan: cannot write this file: No such file or directory" in result.stderr
    assert "error[V004] none/a.svg: cannot write this file" in result.stderr
    assert "2 faults" in result.stderr


def test_graph_of_unknown_kind(folder: Path) -> None:
    result = run(MODEL, "--graph", "a.pdf")
    assert result.exit_code == 2
    assert "error[V002] a.pdf: the suffix '.pdf' names no picture format" in result.stderr


def test_model_and_wiring_faults_come_together(folder: Path) -> None:
    commands = (["nope.py", "-w", "depht1"], ["check", "depht1", "nope.py"], ["train", "nope.py", "-w", "depht1"])
    for arguments in commands:
        result = run(*arguments)
        assert result.exit_code == 2
        assert "error[W004]: there is no shipped wiring 'depht1'" in result.stderr
        assert "did you mean 'depth1'?" in result.stderr
        assert "error[M001] nope.py: the model file does not exist" in result.stderr
        assert result.stdout == ""


def test_errors_as_json(folder: Path) -> None:
    result = run("nope.py", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "errors": [
            {
                "code": "M001", "message": "the model file does not exist", "file": "nope.py", "line": None,
                "column": None, "fix": "name a .py file: deep.py",
            }
        ]
    }  # fmt: skip


def test_errors_name_paths_as_seen_from_here(folder: Path) -> None:
    last = "        return self.c"
    (folder / "bad.py").write_text(DEEP.replace(last, f"        assert x.sum() > 1e9\n{last}"))
    result = run("bad.py")
    assert "error[M010] bad.py:23: the model fails on its example inputs" in result.stderr


def test_a_neighbour_of_the_model_is_imported_anew(folder: Path) -> None:
    (folder / "parts.py").write_text("from torch import nn\nnet = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 3))\n")
    (folder / "model.py").write_text(
        "import torch\nfrom parts import net as model\nexample_inputs = torch.zeros(2, 16)\n"
    )
    from reclra_compile.frontend.load_model import load_model

    first, second = load_model("model.py").model, load_model("model.py").model
    assert first is not second
    assert not (folder / "__pycache__").exists()


# what it looks like


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A terminal whose width can be set."""
    size = [80]

    def terminal(stderr: bool = False) -> Console:
        return Console(stderr=stderr, highlight=False, width=size[0], force_terminal=True, color_system=None)

    monkeypatch.setattr(report, "console", terminal)
    return size


@pytest.mark.parametrize("width", [80, 100, 140])
def test_report_fits_the_terminal(folder: Path, screen: list[int], width: int) -> None:
    screen[0] = width
    lines = run("deep.py").stdout.splitlines()
    assert max(map(len, lines)) <= width
    text = "".join(lines)
    for whole in ("parameters", "kolen_pollack", "local_readout", "lra β=0.01", "a device per region"):
        assert whole in text


def test_report_in_a_pipe_keeps_names_whole(folder: Path) -> None:
    (folder / "long.py").write_text(DEEP.replace("feed_forward_output", "feed_forward_output_of_the_encoder"))
    text = run("long.py").stdout
    rows = [line.split() for line in text.splitlines() if "   dense   " in line]
    names = [f"encoder_layers.{k}.feed_forward_output_of_the_encoder" for k in (0, 1)]
    assert all(any(name in row for row in rows) for name in names)
    assert max(map(len, text.splitlines())) > 100


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("fc", 12, ["fc"]),
        ("encoder.layers.0.attention", 18, ["encoder.layers.0.", "attention"]),
        ("feed_forward_out", 8, ["feed_", "forward_", "out"]),
        ("averylongname", 6, ["averyl", "ongnam", "e"]),
        ("", 5, [""]),
    ],
)
def test_fold(name: str, width: int, lines: list[str]) -> None:
    assert fold(name, width).split("\n") == lines


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (7, "7"), (999, "999"), (999.6, "1.00k"), (1000, "1.00k"), (75_700, "75.7k"), (123_456, "123k"),
        (999_600, "1.00M"), (4.8e6, "4.80M"), (1.5e9, "1.50G"), (2e12, "2.00T"), (3e15, "3.00P"), (4e18, "4000P"),
    ],
)  # fmt: skip
def test_human(number: float, text: str) -> None:
    assert report.human(number) == text


def test_terminal_without_greek_letters() -> None:
    done = shell(MODEL, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "6 regions" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("arguments", [["schema"], [MODEL]])
def test_closed_pipe_is_quiet(arguments: list[str]) -> None:
    code = (
        "import os, sys\nreader, writer = os.pipe()\nos.close(reader)\nos.dup2(writer, 1)\n"
        "from reclra_compile.cli.main import main\nmain(sys.argv[1:])"
    )
    assert shell(*arguments, code=code).stderr == ""


# wirings, check, schema


def test_wirings_are_one_line_each() -> None:
    lines = run("wirings").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped())
    assert all(len(line.split()) > 3 for line in lines)
    assert json.loads(run("wirings", "--json").stdout).keys() == shipped().keys()


@pytest.mark.parametrize("name", list(shipped()))
def test_every_shipped_wiring_compiles_and_trains_nothing(name: str) -> None:
    assert json.loads(run(MODEL, "--wiring", name, "--json").stdout)["wiring"] == name


def test_check() -> None:
    file = str(shipped()["depth1"])
    assert run("check", file).stdout == f"{file}: sound\n"
    assert run("check", file, MODEL).stdout == f"{file}: sound and fits {MODEL}\n"
    assert json.loads(run("check", file, MODEL, "--json").stdout) == {"errors": [], "warnings": [], "warning_codes": []}


def test_check_reports_every_fault(folder: Path) -> None:
    (folder / "my.yaml").write_text("version: 1\nnam: x\npathways:\n  - {from: output, to: all, kernel: dens}\n")
    result = run("check", "my.yaml")
    assert result.exit_code == 2
    assert "error[W003] my.yaml:2:1:" in result.stderr
    assert "error[W004] my.yaml:4:" in result.stderr
    assert {e["line"] for e in json.loads(run("check", "my.yaml", "--json").stdout)["errors"]} == {2, 4}


def test_check_against_a_model(folder: Path) -> None:
    (folder / "my.yaml").write_text("version: 1\nname: x\npathways:\n  - {from: output, to: encoderr}\n")
    assert run("check", "my.yaml").exit_code == 0
    result = run("check", "my.yaml", "deep.py")
    assert result.exit_code == 2
    assert "my.yaml:4" in result.stderr


def test_schema() -> None:
    assert json.loads(run("schema").stdout) == json.loads(json.dumps(json_schema()))


def test_figure_1_of_the_paper_has_two_waves_of_errors() -> None:
    model, wiring = ROOT / "examples" / "figure1.py", ROOT / "examples" / "figure1.yaml"
    result = CliRunner().invoke(main, [str(model), "--wiring", str(wiring), "--json"])
    waves = [[int(n.removeprefix("layer")) for n in wave] for wave in json.loads(result.stdout)["waves"]]
    assert waves == [[9], [8, 5, 2], [7, 6, 4, 3, 1]]
