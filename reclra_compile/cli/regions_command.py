"""`reclra-compile regions MODEL`: what the compiler found in a model, as a table and as a tree."""

from __future__ import annotations

import click

from reclra_compile.cli.errors import reports_errors
from reclra_compile.cli.options import granularity_option, meta_option, output_option


@click.command(short_help="Show the regions of MODEL: layers, blocks or groups.")
@click.argument("model")
@granularity_option
@click.option("--wiring", "-w", metavar="FILE|NAME", help="take the regions of a wiring, blocks inside blocks included")
@output_option
@meta_option
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
@reports_errors
def regions(
    model: str, granularity: str | None, wiring: str | None, output: str | None, meta: bool, as_json: bool
) -> str | None:
    """Show the regions that MODEL is divided into, as a table and as a tree.

    \b
    reclra-compile regions model.py
    reclra-compile regions model.py --granularity block
    reclra-compile regions model.py --granularity groups=4
    reclra-compile regions model.py --wiring my.yaml --json
    """
    from reclra_compile.cli.json_report import regions_json
    from reclra_compile.cli.region_report import print_regions
    from reclra_compile.compiler import regions_for
    from reclra_compile.frontend.load_model import load_model

    loaded = load_model(model, meta=meta)
    with loaded.blamed():
        parts, found, layers = regions_for(
            loaded.model, loaded.inputs, wiring or "backprop", granularity=granularity, output=output
        )
    if as_json:
        return regions_json(parts, found)
    print_regions(type(loaded.model).__name__, parts, found, layers)
    return None
