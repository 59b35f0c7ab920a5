"""`wirings`, `check` and `schema`: what can be wired, and whether a file is right."""

from __future__ import annotations

import json

import click

from reclra_compile.cli.errors import reports_errors


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
@reports_errors
def wirings(as_json: bool) -> None:
    """List the wirings that come with the package, one line each."""
    from rich.table import Table

    from reclra_compile.cli.report import console
    from reclra_compile.spec.load import load_wiring, shipped

    about = {name: load_wiring(name).wiring.about for name in shipped()}
    if as_json:
        click.echo(json.dumps(about, indent=2, ensure_ascii=False))
        return
    table = Table.grid(padding=(0, 2))
    for name, text in about.items():
        table.add_row(f"[bold]{name}[/]", text)
    console().print(table)


@click.command()
@click.argument("wiring")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="print the faults as JSON")
@reports_errors
def check(wiring: str, model: str | None, as_json: bool) -> None:
    """Check a WIRING file, alone or against a MODEL: every fault at once.

    \b
    reclra-compile check my.yaml
    reclra-compile check my.yaml model.py
    """
    from reclra_compile.cli.report import note
    from reclra_compile.spec.load import load_wiring

    loaded = load_wiring(wiring)
    warnings: tuple[str, ...] = ()
    if model is not None:
        from reclra_compile.compiler import plan_for
        from reclra_compile.frontend.load_model import load_model

        found = load_model(model)
        warnings = plan_for(found.model, found.inputs, wiring).warnings
    if as_json:
        click.echo(json.dumps({"errors": [], "warnings": warnings}, ensure_ascii=False))
        return
    fits = f" and fits {model}" if model else ""
    note(f"{loaded.file}: sound{fits}" + "".join(f"\nwarning: {w}" for w in warnings))


@click.command()
def schema() -> None:
    """Print the JSON schema of wiring files, for editors.

    \b
    reclra-compile schema > wiring.schema.json
    """
    from reclra_compile.spec.load import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
