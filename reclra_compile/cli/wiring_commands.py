"""`wirings`, `check` and `schema`: what can be wired, and whether a file is right."""

from __future__ import annotations

import json

import click

from reclra_compile.cli.errors import Faults, reports_errors
from reclra_compile.cli.options import meta_option, output_option
from reclra_compile.errors import Notice


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
@reports_errors
def wirings(as_json: bool) -> str:
    """List the wirings that come with the package, one line each.

    \b
    reclra-compile wirings
    reclra-compile model.py --wiring depth1
    """
    from reclra_compile.spec.load import load_wiring, shipped

    about = {name: load_wiring(name).wiring.about for name in shipped()}
    if as_json:
        return json.dumps(about, indent=2, ensure_ascii=False)
    wide = max(map(len, about))
    return "\n".join(f"{click.style(name.ljust(wide), bold=True)}  {text}" for name, text in about.items())


@click.command(short_help="Check a WIRING file, alone or against a MODEL.")
@click.argument("wiring")
@click.argument("model", required=False)
@output_option
@meta_option
@click.option("--json", "as_json", is_flag=True, help="print the faults as JSON")
@reports_errors
def check(wiring: str, model: str | None, output: str | None, meta: bool, as_json: bool) -> str:
    """Check a WIRING file, alone or against a MODEL: every fault at once.

    \b
    reclra-compile check my.yaml
    reclra-compile check my.yaml model.py
    """
    from reclra_compile.spec.load import load_wiring

    faults = Faults()
    if model is not None:
        from reclra_compile.compiler import plan_for
        from reclra_compile.frontend.load_model import load_model

        with faults.collected():  # before the wiring: the file may register rules that it names
            found = load_model(model, meta=meta)
    with faults.collected():
        loaded = load_wiring(wiring)
    warnings: tuple[Notice, ...] = ()
    if model is not None:
        faults.report()
        with found.blamed():
            warnings = plan_for(found.model, found.inputs, wiring, output=output).warnings
    faults.report()
    if as_json:
        said = {"warnings": [w.message for w in warnings], "warning_codes": [w.code for w in warnings]}
        return json.dumps({"errors": [], **said}, indent=2, ensure_ascii=False)
    fits = f" and fits {model}" if model else ""
    return f"{loaded.file}: sound{fits}" + "".join(f"\n{w}" for w in warnings)


@click.command()
@reports_errors
def schema() -> str:
    """Print the JSON schema of wiring files, for editors.

    \b
    reclra-compile schema > wiring.schema.json
    """
    from reclra_compile.spec.load import json_schema

    return json.dumps(json_schema(), indent=2, ensure_ascii=False)
