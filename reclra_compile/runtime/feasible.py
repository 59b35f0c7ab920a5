"""Can each region do what its pathways ask of it? Checked on the traced graph, before anything is linked."""

from __future__ import annotations

from reclra_compile.errors import Fault, WiringError
from reclra_compile.frontend.cut import Cut, location_of, source_of
from reclra_compile.frontend.extract import whole
from reclra_compile.frontend.trace import Traced
from reclra_compile.ir import Plan
from reclra_compile.runtime.feedback import unmirrored
from reclra_compile.schedule.lower import whole_regions

CODES = {
    "W033": "a layer has no mirrored weights for transpose, sign or mirror",
    "W035": "a region's outputs cannot be separated from its parameters",
}


def check_feasible(plan: Plan, traced: Traced, cuts: tuple[Cut, ...]) -> None:
    """Raise WiringError (W033, W035) that names every region whose kernel or rule does not fit its layers."""
    mirrored = {p.source for p in plan.pathways if p.edge and p.kernel != "adjoint"}
    split = {t.region for t in plan.targets} - whole_regions(plan.targets, plan.pathways)
    faults: list[Fault] = []
    for cut in cuts:
        where = location_of(source_of(cut, traced))
        rejected = unmirrored(whole(traced, cut).module) if cut.name in mirrored else []
        if rejected:
            faults.append(
                Fault(
                    "W033",
                    f"region '{cut.name}': no mirrored weights for {', '.join(rejected)}",
                    where,
                    "use `kernel: adjoint` for this region",
                )
            )
        if cut.name in split and not cut.separable:
            faults.append(
                Fault(
                    "W035",
                    f"region '{cut.name}' has {len(cut.outputs)} outputs that no single value separates from its "
                    "parameters, so it cannot get a target of its own",
                    where,
                    "use `kernel: adjoint` with rule gradient for it",
                )
            )
    if faults:
        raise WiringError(faults)
