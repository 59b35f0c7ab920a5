"""Loading wirings: marks, short forms, shipped names, mappings, numbers, the JSON schema, fuzzing."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reclra_compile.errors import Location, WiringError
from reclra_compile.spec import load
from reclra_compile.spec.load import CODES, Loaded, json_schema, load_wiring, shipped
from reclra_compile.spec.parts import ACTIVATIONS, Kernel
from reclra_compile.spec.schema import Wiring

FULL = """\
version: 1
name: full
about: every form
regions: {granularity: layer}
target: {rule: lra, beta: 1e-1, normalize: yes, kappa: .5, p: 1, q: 2, phi: same, rescale: false}
pathways:
  - from: output
    to: all
    kernel: dense
    init: {normal: 1e-3}
    update: fixed
  - from: [output, 'fc*']
    to: {every: 3, start: 2}
    kernel: {low_rank: 8}
    init: {fan_in: {scale: 1}}
    update: {kolen_pollack: 0.5}
  - from: next
    to: {layers: [1, 4]}
    kernel: {low_rank: {rank: 4}}
    update: {lra: {gamma: 0.1, growth_limit: 10}}
  - {from: relay, to: {narrowest: 2}, kernel: {name: low_rank, rank: 2}, init: {name: zeros}}
  - {from: consumers, to: {names: [a, b]}, kernel: adjoint, update: tied}
  - {from: next, to: {phi: relu}}
synapses: {kernel: auto, init: auto, update: auto, max_entries: 16_000_000}
overrides:
  - {regions: fc1, target: {rule: gradient}}
  - {regions: {layers: [2]}, target: {phi: tanh}}
frozen: [conv1, conv2]
training:
  {optimizer: sgd, lr: 5e-2, weight_decay: 0, schedule: cosine, batch_size: 1e2, epochs: 3, clip: 1,
   phi: {relu: {lr: 1E-3}}}
"""
SMALL: dict[str, Any] = {"version": 1, "pathways": [{"from": "output", "to": "all"}]}
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, text: str | bytes, name: str = "w.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def codes(source: Any) -> list[str]:
    with pytest.raises(WiringError) as caught:
        load_wiring(source)
    return [fault.code for fault in caught.value.faults]


def test_every_form_is_read(tmp_path: Path) -> None:
    wiring = load_wiring(write(tmp_path, FULL)).wiring
    assert wiring.target.beta == 0.1 and wiring.target.kappa == 0.5 and wiring.target.normalize is True
    kernels = [p.kernel for p in wiring.pathways[1:4]]
    assert kernels == [Kernel(name="low_rank", rank=r) for r in (8, 4, 2)]
    first = wiring.pathways[0]
    assert first.init is not None and (first.init.name, first.init.scale) == ("normal", 0.001)
    assert first.source.names == ["output"] and wiring.pathways[1].source.names == ["output", "fc*"]
    assert wiring.synapses.max_entries == 16_000_000
    assert (wiring.training.lr, wiring.training.batch_size) == (0.05, 100)
    assert wiring.training.phi["relu"].lr == 1e-3


def test_marks_are_lines_and_columns_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    loaded = load_wiring(path)

    def place(*at: str | int) -> tuple[int, int]:
        where = loaded.where(*at)
        assert where is not None and where.file == loaded.file == str(path)
        return where.line, where.column

    assert place() == (1, 1)
    assert place("target", "beta") == (5, 27)
    assert place("pathways", 0) == (7, 5)
    assert place("pathways", 0, "to") == (8, 9)
    assert place("pathways", 0, "to", "names", 0) == (8, 9)
    assert place("pathways", 0, "kernel", "name") == (9, 13)
    assert place("pathways", 1, "source", "names", 1) == place("pathways", 1, "from", 1) == (12, 20)
    line, column = place("pathways", 4, "to", "names", 1)
    assert FULL.splitlines()[line - 1][column - 1 :].startswith("b]}")
    assert place("pathways", 99, "to") == (7, 3)
    assert place("nowhere", "at", "all") == (1, 1)


def test_mapping_is_read_and_located_by_path() -> None:
    before = copy.deepcopy(SMALL)
    loaded = load_wiring(SMALL)
    assert before == SMALL
    assert loaded.wiring.pathways[0].to.names == ["all"]
    assert loaded.where("pathways", 0, "source", "names", 0) == Location("<dict>: pathways[0].from[0]")
    assert str(loaded.where()) == "<dict>"
    with pytest.raises(WiringError) as caught:
        load_wiring({"version": 1, "pathways": [{"from": "output", "to": 3}], "nam": "x"})
    assert [str(f.where) for f in caught.value.faults] == ["<dict>: pathways[0].to", "<dict>: nam"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 2}, "W010"), ({1: "a"}, "W005"), ({"target": {1: 2}}, "W005"),
        ({"target": {"beta": float("nan")}}, "W007"), ({"target": {"beta": "1e-3x"}}, "W005"),
        ({"target": {"beta": True}}, "W005"), ({"training": {"optimizer": object()}}, "W004"),
        ({"pathways": [SMALL["pathways"][0], {"from": "next"}]}, "W006"), ({"about": b"\xff"}, "W005"),
        ({"synapses": {"kernel": {5: 3}}}, "W005"), ({"frozen": ["a", object()]}, "W005"),
    ],
)  # fmt: skip
def test_faults_of_a_mapping(change: dict[Any, Any], code: str) -> None:
    assert codes({**SMALL, **change}) == [code]


def test_mapping_may_hold_tuples_text_numbers_and_itself() -> None:
    wiring = load_wiring({**SMALL, "frozen": ("a", "b"), "target": {"beta": "1e-3"}}).wiring
    assert wiring.frozen is not None and wiring.frozen.names == ["a", "b"] and wiring.target.beta == 1e-3
    loop: dict[str, Any] = dict(SMALL)
    loop["training"] = {"optimizer": loop}
    assert codes(loop) == ["W004"]


def test_wiring_passes_through() -> None:
    wiring = load_wiring(SMALL).wiring
    loaded = load_wiring(wiring)
    assert loaded == Loaded(wiring, "<wiring>") and loaded.wiring is wiring
    assert str(loaded.where("pathways", 0)) == "<wiring>: pathways[0]"


def test_a_wiring_that_was_dumped_is_read_again() -> None:
    wiring = load_wiring(yaml.safe_load(FULL.replace("1e2", "100"))).wiring
    assert load_wiring(wiring.model_dump(by_alias=True)).wiring == wiring


def test_aliases_of_modest_size_are_read(tmp_path: Path) -> None:
    text = (
        "version: 1\npathways:\n  - {from: output, to: fc1, init: &i {normal: 0.01}}\n"
        "  - {from: next, to: fc2, init: *i}\n"
    )
    loaded = load_wiring(write(tmp_path, text))
    assert loaded.wiring.pathways[0].init == loaded.wiring.pathways[1].init
    assert loaded.where("pathways", 1, "init") == loaded.where("pathways", 0, "init")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E3", 1e3), ("+.5e+1", 5.0), ("2.", 2), ("010", 10), ("1_000", 1e3), ("'1e-3'", 1e-3)],
)  # fmt: skip
def test_numbers(tmp_path: Path, text: str, value: float) -> None:
    path = write(tmp_path, f"version: 1\npathways: [{{from: output, to: all}}]\ntarget: {{beta: {text}}}\n")
    assert load_wiring(path).wiring.target.beta == value


@pytest.mark.parametrize("text", ["on", "yes", "NaN", ".nan", "-.inf", "1e999", "0x10", "1:30", "e5", "[1]"])
def test_what_is_no_number(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, f"version: 1\npathways: [{{from: output, to: all}}]\ntarget: {{beta: {text}}}\n")
    assert codes(path) in (["W005"], ["W007"])


def test_dates_are_text(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\nname: 2024-01-01\npathways: [{from: output, to: all}]\n")
    assert load_wiring(path).wiring.name == "2024-01-01"


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    text = "version: 1\r\npathways:\r\n  - {from: output, to: all}\r\n"
    assert load_wiring(write(tmp_path, b"\xef\xbb\xbf" + text.encode())).where("pathways", 0) is not None


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert codes(tmp_path) == codes(str(tmp_path) + os.sep) == ["W001"]
    assert codes(tmp_path / "none.yaml") == codes("none.yaml") == codes("no/such") == ["W001"]
    assert codes("nul\0.yaml") == codes("surrogate\udcff/x\0") == ["W001"]
    assert codes(write(tmp_path, "# " + "x" * 2**20)) == ["W009"]

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(WiringError, match=r"w\.yaml: the file cannot be read: Permission denied"):
        load_wiring(tmp_path / "w.yaml")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wiring"
    folder.mkdir()
    for name in ("wide", "narrow"):
        write(folder, f"version: 1\nname: {name}\npathways: [{{from: output, to: all}}]\n", f"{name}.yaml")
    monkeypatch.setattr(load, "_DIRECTORIES", (tmp_path / "absent", folder))
    monkeypatch.chdir(tmp_path)
    return folder


def test_shipped_names(library: Path) -> None:
    assert shipped() == {"narrow": library / "narrow.yaml", "wide": library / "wide.yaml"}
    assert list(shipped()) == ["narrow", "wide"]
    assert load_wiring("wide").wiring.name == "wide"
    with pytest.raises(WiringError) as caught:
        load_wiring("wyde")
    assert str(caught.value) == (
        "error[W004]: there is no shipped wiring 'wyde'\n"
        "  fix: did you mean 'wide'?; the path of a file ends in .yaml"
    )
    with pytest.raises(WiringError, match="valid: narrow, wide"):
        load_wiring("xxxxx")


def test_a_file_goes_before_a_shipped_name(library: Path) -> None:
    write(library.parent, "version: 1\nname: mine\npathways: [{from: output, to: all}]\n", "wide")
    assert load_wiring("wide").wiring.name == "mine"


def test_no_library_ships_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_DIRECTORIES", (tmp_path / "absent",))
    assert shipped() == {}
    assert codes("wide") == codes("") == codes("version: 1\n") == ["W004"]


def test_every_shipped_wiring_loads_and_fits_the_schema() -> None:
    schema = json_schema()
    for name, path in shipped().items():
        assert load_wiring(name).wiring == load_wiring(path).wiring
        assert fits(plain(path.read_text(encoding="utf-8")), schema, schema), name


def test_faults_are_sorted_and_their_codes_known(tmp_path: Path) -> None:
    with pytest.raises(WiringError) as caught:
        load_wiring(write(tmp_path, "foo: 1\nversion: '1'\npathways:\n  - {to: 3}\ntarget: {p: 3, p: 1}\n"))
    faults = caught.value.faults
    assert [(f.where.line if f.where else 0, f.code) for f in faults] == [
        (1, "W003"), (2, "W010"), (4, "W006"), (4, "W005"), (5, "W007"), (5, "W008"),
    ]  # fmt: skip
    assert {f.code for f in faults} <= set(CODES)


def fits(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Whether `value` satisfies the part of JSON Schema that our schema uses."""
    if "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return fits(value, target, root)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    types = {
        "object": isinstance(value, dict), "array": isinstance(value, list), "string": isinstance(value, str),
        "boolean": isinstance(value, bool), "null": value is None, "number": number,
        "integer": number and value == int(value),
    }  # fmt: skip
    properties = schema.get("properties", {})
    checks = [
        types[schema["type"]] if "type" in schema else True,
        value in schema["enum"] if "enum" in schema else True,
        value == schema["const"] if "const" in schema else True,
        any(fits(value, s, root) for s in schema["anyOf"]) if "anyOf" in schema else True,
    ]
    if number:
        checks.append(schema.get("minimum", value) <= value)
        checks.append(value > schema.get("exclusiveMinimum", value - 1))
    if isinstance(value, list):
        checks += [fits(v, schema.get("items", {}), root) for v in value]
        checks.append(len(value) >= schema.get("minItems", 0))
    if isinstance(value, dict):
        other = schema.get("additionalProperties", True)
        rest = [v for k, v in value.items() if k not in properties]
        checks += [fits(v, properties[k], root) for k, v in value.items() if k in properties]
        checks += [fits(v, other, root) if isinstance(other, dict) else other for v in rest]
        checks += [fits(k, schema["propertyNames"], root) for k in value if "propertyNames" in schema]
        checks += [key in value for key in schema.get("required", [])]
        checks.append(schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)))
    return all(checks)


def plain(text: str) -> Any:
    """The data of a wiring as an editor's YAML 1.2 parser sees it: 1e-3 is a number."""
    return yaml.safe_load(re.sub(r"\b[0-9]+[eE]-?[0-9]+\b", lambda m: f"{float(m[0]):.12f}", text))


def test_json_schema_accepts_every_form() -> None:
    schema = json_schema()
    data = plain(FULL)
    assert schema["$schema"].startswith("https://json-schema.org/") and schema["title"]
    assert fits(data, schema, schema)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"nam": "x"}, {"target": {"rule": "lr"}}, {"target": {"phi": "rellu"}},
        {"synapses": {"kernel": "dens"}}, {"synapses": {"kernel": "low_rank"}},
        {"synapses": {"kernel": {"low_rank": 0}}}, {"synapses": {"kernel": {"dense": 3}}},
        {"synapses": {"init": {"normal": 1, "zeros": 1}}}, {"synapses": {"update": {"tied": {"gama": 1}}}},
        {"training": {"optimizer": "sgdd"}}, {"training": {"phi": {"rellu": {}}}}, {"pathways": []},
        {"pathways": [{"from": "output"}]}, {"frozen": 3}, {"target": {"beta": 0}},
    ],
)  # fmt: skip
def test_json_schema_refuses_what_the_loader_refuses(change: dict[str, Any]) -> None:
    schema = json_schema()
    assert fits(SMALL, schema, schema) and not fits({**SMALL, **change}, schema, schema)
    codes({**SMALL, **change})


def test_json_schema_names_what_may_be_written() -> None:
    text = str(json_schema())
    for word in (*ACTIVATIONS, "kolen_pollack", "mirror", "glorot", "gradient", "adamw", "'from'"):
        assert word in text


words = st.sampled_from(
    [
        "version", "pathways", "from", "to", "kernel", "init", "update", "name", "names", "target",
        "every", "layers", "low_rank", "dense", "rank", "all", "output", "synapses", "training", "phi", "<<",
        "relu", "",
    ]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)
pieces = st.sampled_from(
    [*"\t\n :-[]{},&*!|>%@`'\"#?~<0", "\n  ", "- ", ": ", "\\x", "!!set ", "&a ", "*a"]
)


def load_any(source: Any) -> None:
    try:
        load_wiring(source)
    except WiringError as error:
        assert error.faults and all(f.code in CODES and f.message for f in error.faults)
        assert "pydantic" not in str(error)


@QUICK
@given(text=st.text() | st.text("\t\n :-[]{},&*!|>%'\"#?a1") | st.binary())
def test_no_text_breaks_the_loader(text: str | bytes, tmp_path: Path) -> None:
    load_any(write(tmp_path, text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text))


@QUICK
@given(data=values)
def test_no_data_breaks_the_loader(data: Any, tmp_path: Path) -> None:
    load_any(write(tmp_path, yaml.safe_dump(data, allow_unicode=True)))
    if isinstance(data, dict):
        load_any(data)
        load_any({**SMALL, **data})


@QUICK
@given(at=st.integers(0, len(FULL)), drop=st.integers(0, 9), piece=pieces)
def test_no_edit_of_a_wiring_breaks_the_loader(at: int, drop: int, piece: str, tmp_path: Path) -> None:
    load_any(write(tmp_path, FULL[:at] + piece + FULL[at + drop :]))


@QUICK
@given(name=st.text(max_size=30))
def test_no_name_breaks_the_loader(name: str) -> None:
    load_any(name)


def test_wiring_type_is_frozen() -> None:
    wiring = load_wiring(SMALL).wiring
    assert isinstance(wiring, Wiring)
    with pytest.raises(ValueError, match="frozen"):
        wiring.name = "other"
