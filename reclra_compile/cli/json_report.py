"""The reports as JSON: stable keys, documented in docs/cli.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from reclra_compile.cli.device_report import devices_dict, on_devices
from reclra_compile.errors import ReclraError
from reclra_compile.ir import Plan, Region
from reclra_compile.spec.divide import Part


def plan_json(plan: Plan) -> str:
    """The compile report: regions, pathways, waves, placement, cost, training settings and warnings."""
    return json.dumps(plan_dict(plan), indent=2, ensure_ascii=False)


def plan_dict(plan: Plan) -> dict[str, Any]:
    """The compile report as plain data; `waves[0]` is the output region."""
    targets = {t.region: asdict(t) for t in plan.targets}
    wave = {name: k for k, names in enumerate(plan.waves) for name in names}
    return {
        "version": 1,
        "wiring": plan.name,
        "model": plan.model,
        "fingerprint": plan.fingerprint,
        "batch": plan.batch,
        "regions": [
            {
                "name": r.name,
                "op": r.op,
                "phi": r.phi,
                "shape": r.shape,
                "inputs": r.inputs,
                "layers": r.layers,
                "within": r.within,
                "parameters": r.parameter_count,
                "flops": {"forward": r.forward_flops, "weight": r.weight_flops, "input": r.input_flops},
                "wave": wave.get(r.name),
                "target": targets.get(r.name),
                "source": r.source,
            }
            for r in plan.regions
        ],
        "pathways": [
            {
                "name": p.name,
                "from": p.source,
                "to": p.target,
                "kernel": p.kernel,
                "rank": p.rank or None,
                "grid": p.grid or None,
                "reason": p.reason or None,
                "update": p.update,
                "init": p.init,
                "scale": p.scale,
                "synapses": p.synapses,
                "flops": p.flops,
                "wave": wave[p.target],
            }
            for p in plan.pathways
        ],
        "waves": plan.waves,
        "placement": {name: plan.devices[d].name for name, d in plan.placement.regions},
        **({"schedule": devices_dict(plan)} if on_devices(plan) else {}),
        "cost": {**asdict(plan.cost), "flops": plan.cost.flops, "ratio": plan.cost.ratio},
        "training": asdict(plan.training),
        "warnings": [w.message for w in plan.warnings],
        "warning_codes": [w.code for w in plan.warnings],
    }


def regions_json(parts: Sequence[Part], regions: Sequence[Region]) -> str:
    """{"regions": [...], "tree": [...]}: each region measured, and the parts with what is inside them."""
    report = {"version": 1, "regions": [asdict(r) for r in regions], "tree": [_part(p) for p in parts]}
    return json.dumps(report, indent=2, ensure_ascii=False)


def _part(part: Part) -> dict[str, Any]:
    return {"name": part.name, "layers": part.layers, "parts": [_part(p) for p in part.parts]}


def errors_json(error: ReclraError) -> str:
    """{"errors": [{code, message, file, line, column, fix}]}."""
    return json.dumps(
        {
            "errors": [
                {
                    "code": f.code,
                    "message": f.message,
                    "file": f.where.file if f.where else None,
                    "line": (f.where.line or None) if f.where else None,
                    "column": (f.where.column or None) if f.where else None,
                    "fix": f.fix or None,
                }
                for f in error.faults
            ]
        },
        indent=2,
        ensure_ascii=False,
    )
