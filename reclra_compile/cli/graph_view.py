"""What `graph` writes, opens and says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from reclra_compile.cli.graph_plans import plans_of
from reclra_compile.cli.report import note
from reclra_compile.cli.text_graph import print_graph
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.simulate.measured import Traced, predicted_us, read_trace
from reclra_compile.simulate.retarget import retargeted
from reclra_compile.view.draw import write_picture
from reclra_compile.view.label import time_text
from reclra_compile.view.mermaid import SUFFIXES, too_large
from reclra_compile.view.tables import check_beside

PAGE_ONLY = ("beside", "trace", "simulate")


def carry_out(model: str, wiring: str, given: bool, options: dict[str, Any]) -> str | None:
    """Do what the command line asks for; returns JSON where that is wanted. Raises ReclraError for mistakes."""
    trace = read_trace(options["trace"]) if options["trace"] else None
    plan, *others = plans_of(model, wiring, given, options)
    for other in others:
        check_beside(plan, other)
    if trace is not None:
        plan = trace.fits(plan)
    if options["simulate"]:
        plan = retargeted(plan, Machine())  # says so where there are no times to simulate
    paged = options["opened"] or (any(options[k] for k in PAGE_ONLY) and not options["as_text"])
    out = options["out"] or (_named(plan) if paged else None)
    if out:
        write_picture(plan, out, beside=others[0] if others else None, trace=trace.recorded if trace else None)
    step = _times(plan, trace, options["simulate"])
    opened = _open(out) if out and options["opened"] else None
    if options["as_json"]:
        data = {"version": 1, "plan": plan.name, "model": plan.model, "beside": others[0].name if others else None,
                "regions": len(plan.regions), "pathways": len(plan.pathways), "waves": len(plan.waves),
                "picture": out, "opened": opened, **step}  # fmt: skip
        return json.dumps(data, indent=2, ensure_ascii=False)
    if not out or options["as_text"]:
        for one in (plan, *others):
            print_graph(one, options["collapse"])
    for line in _said(step):
        note(line)
    if out:
        note(f"picture written to {out}")
    if out and Path(out).suffix.lower() in SUFFIXES and too_large(Path(out).read_text(encoding="utf-8")):
        note("it is too large for Mermaid as it is: raise maxEdges and maxTextSize, or draw larger regions, such as "
             "--granularity block")  # fmt: skip
    if out and opened is False:
        note(f"there is no browser to open it here: open {Path(out).resolve().as_uri()} in one")
    return None


def _named(plan: Plan) -> str:
    """A file name for a page of a plan, whose names are free text."""
    return re.sub(r"[^\w.+-]+", "_", f"{plan.model}-{plan.name}").strip("._-") + ".html"


def _times(plan: Plan, trace: Traced | None, simulate: bool) -> dict[str, float | None]:
    """Predicted and measured microseconds of a step, and their ratio; null where one is not known."""
    predicted = predicted_us(plan) if simulate or trace is not None else None
    measured = trace.step_us if trace is not None else None
    ratio = measured / predicted if measured is not None and predicted else None
    return {"predicted_us": predicted, "measured_us": measured, "ratio": ratio}


def _said(step: dict[str, float | None]) -> list[str]:
    predicted, measured, ratio = step["predicted_us"], step["measured_us"], step["ratio"]
    if measured is None:
        return [f"predicted step: {time_text(predicted)}"] if predicted else []
    if predicted is None:
        return [f"measured step: {time_text(measured)}; none is predicted, as the plan's devices have no rates "
                "(say --devices, or --device-profile measured after `reclra-compile profile`)"]  # fmt: skip
    times = "" if ratio is None else f", {ratio:.2f} × the {time_text(predicted)} that are predicted"
    return [f"measured step: {time_text(measured)}{times}"]


def _open(file: str) -> bool:
    """Open a file in the browser; False where there is none."""
    import webbrowser

    try:
        return webbrowser.open(Path(file).resolve().as_uri())
    except (webbrowser.Error, OSError):
        return False
