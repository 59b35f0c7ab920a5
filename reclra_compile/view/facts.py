"""What a person may want to know about a region or a pathway, as pairs of a caption and a value."""

from __future__ import annotations

from reclra_compile.ir import Pathway, Plan, Region, Target
from reclra_compile.view.label import amount, count

Facts = tuple[tuple[str, str], ...]


def wave_of(plan: Plan) -> dict[str, int]:
    """The wave in which each region gets its error neurons; regions without one are left out."""
    return {name: k for k, wave in enumerate(plan.waves) for name in wave}


def output_region(plan: Plan) -> str:
    """The region that produces the model's output, or '' where none does."""
    return next((r.name for r in plan.regions if plan.output in r.outputs), "")


def drawable(plan: Plan) -> tuple[Pathway, ...]:
    """The pathways between regions that the plan has."""
    names = {r.name for r in plan.regions}
    return tuple(p for p in plan.pathways if p.source in names and p.target in names)


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as 3×32×32; a scalar is 1."""
    return "×".join(str(s) for s in shape) or "1"


def region_facts(region: Region, target: Target | None, wave: int | None, device: str = "") -> Facts:
    """Everything about a region, in the order in which it is shown."""
    tail = ", then parameter-free operations" if region.tail else ""
    facts = [
        ("operation", region.op),
        ("activation φ", region.phi + tail),
        ("inputs", ", ".join(region.inputs)),
        ("outputs", ", ".join(region.outputs)),
        ("shape", f"{shape_text(region.shape)} ({count(region.size)} neurons)"),
        ("parameters", count(region.parameter_count)),
        ("forward", amount(region.forward_flops, "FLOP")),
        ("weight gradient", amount(region.weight_flops, "FLOP")),
        ("input gradient", amount(region.input_flops, "FLOP")),
    ]
    if target is not None:
        facts += [("target rule", _rule(target)), ("learns", "yes" if target.trainable else "no: frozen")]
    facts.append(("wave", "none" if wave is None else str(wave)))
    facts += [(k, v) for k, v in (("device", device), ("source", region.source)) if v]
    return tuple(facts)


def _rule(t: Target) -> str:
    parts = [t.rule]
    if t.rule == "lra":
        parts.append(f"β {t.beta:g}")
        parts += [f"κ {t.kappa:g}"] * (t.kappa != 1) + [f"p {t.p}, q {t.q}"] * ((t.p, t.q) != (2, 2))
        parts += ["normalized by β"] * t.normalize
    parts += [f"φ {t.phi}"] * (t.phi != "same") + ["rescaled"] * t.rescale
    return ", ".join(parts)


def pathway_facts(p: Pathway, wave: int | None) -> Facts:
    """Everything about a pathway, in the order in which it is shown."""
    kernel = f"{p.kernel}, rank {p.rank}" if p.rank else p.kernel
    init = p.init if p.init in ("none", "zeros") else f"{p.init} {p.scale:g}"
    update = p.update
    if p.update not in ("fixed", "tied"):
        update += f", γ {p.gamma:g}" + (f", growth ≤ {p.growth_limit:g}×" if p.growth_limit else "")
    facts = [
        ("from", p.source),
        ("to", p.target),
        ("kernel", kernel + (" (along the model's own edge)" if p.edge else "")),
        ("synapses", "0: tied to the model's weights" if p.edge and not p.synapses else count(p.synapses)),
        ("initial values", init),
        ("update", update),
        ("application", amount(p.flops, "FLOP")),
        ("synapse update", amount(p.update_flops, "FLOP")),
        ("wave", "none" if wave is None else str(wave)),
    ]
    return tuple(facts + [("why", p.reason)] * bool(p.reason))


def hover(heading: str, facts: Facts) -> str:
    """Facts as lines of text under a heading."""
    return "\n".join([heading, *(f"{k}: {v}" for k, v in facts)])
