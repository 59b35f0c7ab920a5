"""Warnings about settings that were measured to fail or to be slow to learn."""

from __future__ import annotations

from reclra_compile.errors import Notice
from reclra_compile.ir import Region
from reclra_compile.rules.catalogue import TARGETS
from reclra_compile.spec.resolve import LEAST_SHARE, Resolved

LONG_CHAIN = 8  #: inverses in a row; five were measured to train
BOUNDED = ("tanh", "sigmoid", "hardtanh", "hardsigmoid", "softsign", "relu6", "sign")


def warnings_for(resolved: Resolved, regions: tuple[Region, ...]) -> tuple[Notice, ...]:
    """One warning per doubtful setting, with the change that helps."""
    by_name = {r.name: r for r in regions}
    root = resolved.waves[0][0]
    chained = {p.target for p in resolved.pathways if p.source != root}
    found = list(resolved.notes)
    tiny = [t.region for t in resolved.targets if t.rule == "lra" and t.beta < 1e-4]
    if tiny:
        smallest = min(t.beta for t in resolved.targets if t.rule == "lra")
        found.append(Notice(
            f"β = {smallest:g} on {_some(tiny)}: z − φ(h − βd) cancels "
            "in float32; use β ≥ 1e-3, or the rule `gradient`, which is its limit",
            "W104",
        ))
    signs = [t for t in resolved.targets if t.region != root and _phi(t.phi, by_name[t.region].phi) == "sign"]
    flat = [t.region for t in signs
            if t.rule in ("gradient", "equilibrium") or TARGETS[t.rule].derivative or t.region in chained]  # fmt: skip
    if flat:
        found.append(Notice(
            f"sign units on {_some(flat)}: a small β d never flips a unit and φ' is zero, so little or no error "
            "comes through; set `target: {phi: tanh}` for them, or feed them from the output with `rescale: true`",
            "W105",
        ))
    printed = [p.name for p in resolved.pathways if p.update == "lra"]
    if printed:
        found.append(Notice(
            f"E6 with its printed sign on {_some(printed)}: these synapses grow without bound under gradient "
            "descent (held at growth_limit × their initial norm); local_readout or kolen_pollack learn better",
            "W106",
        ))
    inverted = [p.name for p in resolved.pathways if p.update == "autoencoding"]
    if len(inverted) > LONG_CHAIN:
        found.append(Notice(
            f"errors pass up to {len(inverted)} learned inverses one after the other, and shrink in each that has not "
            "learned yet: the first regions may hear nothing for long; see `reclra-compile diagnose`",
            "W107",
        ))
    settled = [t for t in resolved.targets if t.rule == "equilibrium"]
    share = settled[0].feedback ** (len(resolved.waves) - 1) if settled else 1.0
    if share < LEAST_SHARE / 20:
        found.append(Notice(
            f"feedback {settled[0].feedback:g} over {len(resolved.waves) - 1} regions: the first of them hear "
            f"{share:.0e} of the nudging, which float32 rounds away; leave `feedback` out, or use float64",
            "W108",
        ))
    unbounded = [t.region for t in settled if by_name[t.region].parameters and by_name[t.region].phi not in BOUNDED]
    if unbounded:
        found.append(Notice(
            f"{by_name[unbounded[0]].phi} units settle without a bound on {_some(unbounded)}, and their states may "
            "grow from step to step; use tanh, sigmoid or hardtanh units, or a smaller `settle: {step: …}`",
            "W109",
        ))
    normed = [t.region for t in settled if by_name[t.region].norm]
    if normed:
        found.append(Notice(
            f"states settle through norms on {_some(normed)}: with batch norms they settle elsewhere in eval mode, "
            "where nothing holds back what feedback amplifies; use layer norms, or none",
            "W110",
        ))
    maps = [p.name for p in resolved.pathways if p.update == "fixed" and len(by_name[p.target].shape) > 1]
    if maps:
        found.append(
            Notice(f"fixed synapses onto feature maps ({_some(maps)}): these hardly train; let them learn", "W111")
        )
    found += [Notice(f"pathway {p.name} is {p.kernel} (rank {p.rank}): {p.reason}", "W112")
              for p in resolved.pathways if p.rank]  # fmt: skip
    return tuple(found)


def idle_warning(names: tuple[str, ...]) -> list[Notice]:
    """A warning about parameters that the output does not depend on; none where there are no such."""
    said = f"the output does not depend on these parameters, so nothing teaches them: {_some([*names])}"
    return [Notice(said, "M301")] * bool(names)


def _phi(chosen: str, own: str) -> str:
    return own if chosen == "same" else chosen


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
