"""From measured numbers to warnings in plain words, each with the setting to change. Torch-free.

A rule looks at one region, or at the whole run, and gives a finding or nothing. The limits below are where
runs of the examples were seen to suffer; docs/diagnose.md lists them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from reclra_compile.diagnose.case import Case, cases
from reclra_compile.diagnose.facts import Diagnosis, Finding
from reclra_compile.diagnose.words import short
from reclra_compile.rules.catalogue import reads_out

CODES = {
    "G001": "the loss, or a weight, stopped being finite",
    "G002": "the loss has risen",
    "G003": "error synapses explode",
    "G004": "activities explode",
    "G005": "β is too large",
    "G006": "β is too small for the precision",
    "G007": "targets are saturated",
    "G008": "units are dead",
    "G009": "the update is at a right angle to the gradient",
    "G010": "the update points away from the gradient",
    "G011": "errors vanish",
    "G012": "errors are large beside activities",
    "G013": "a read-out lags behind",
    "G014": "targets of literal sign units carry little",
    "G015": "a region does not learn",
}

RISEN, SYNAPSES, ACTIVITY = 1.5, 4.0, 100.0
JUMP, PUSHED, ROUNDING, SATURATED, DEAD = 0.5, 0.25, 0.05, 0.9, 0.5
RIGHT_ANGLE, AWAY = 87.0, 95.0
VANISHED, LARGE = 1e-4, 100.0
STUCK, LEARNED, FLIPS = 0.8, 0.5, 1e-3


class Found(NamedTuple):
    """What a rule says of a region; the largest `severity` is shown first."""

    severity: float
    message: str
    suggestion: str


def findings(diagnosis: Diagnosis) -> tuple[Finding, ...]:
    """Every finding, ordered by code, the worst region of each code first."""
    found: list[tuple[str, float, Finding]] = []
    for case in cases(diagnosis):
        for code, rule in _RULES.items():
            if (said := rule(case)) is not None:
                found.append((code, -said.severity, Finding(code, case.region.name, said.message, said.suggestion)))
    found.sort(key=lambda f: f[:2])
    return (*_of_the_run(diagnosis), *(f for _, _, f in found))


def _of_the_run(d: Diagnosis) -> Iterator[Finding]:
    lower = f"lower --lr (now {d.settings.lr:g}), for example to {_nice(d.settings.lr / 3)}"
    if d.stopped:
        yield Finding("G001", "", d.stopped, f"{lower}, limit the gradient with --clip 1, or use --optimizer adamw")
    worst = max(d.probes, key=lambda p: p.loss if math.isfinite(p.loss) else math.inf)
    if worst.loss > RISEN * d.probes[0].loss:
        yield Finding(
            "G002", "", f"the loss rose from {d.probes[0].loss:.3g} to {worst.loss:.3g} by step {worst.step}",
            f"{lower}, let it rise slowly with --warmup 0.1, or limit the gradient with --clip 1",
        )  # fmt: skip


def _synapses(c: Case) -> Found | None:
    """‖E‖ beside the larger of its first value and that of synapses drawn with fan_in 1."""
    size = {r.name: r.size for r in c.diagnosis.plan.regions}
    usual = math.sqrt(sum(p.synapses / max(1, size[p.source]) for p in c.pathways))
    norm, first = c.last.synapse_norm, c.first.synapse_norm
    if norm is None or first is None or norm <= SYNAPSES * max(first, usual):
        return None
    fix = f"lower --lr (now {c.lr}), or use --optimizer adamw with --weight-decay 0.1"
    if "lra" in c.updates:
        fix = "synapses.update: local_readout from the output, kolen_pollack between neighbours; or a smaller gamma"
    grown = norm / max(first, usual)
    return Found(grown, f"the error synapses grew to {norm:.3g}, {grown:.2g} times what is usual for their size", fix)


def _activity(c: Case) -> Found | None:
    now, start = c.last.activity, c.first.activity
    if now is None or start is None or now <= ACTIVITY * max(1.0, start) or c.is_output:
        return None
    return Found(
        now / max(1.0, start),
        f"the activities grew to an RMS of {now:.3g}, from {start:.3g} at the start",
        f"lower --lr (now {c.lr}), raise --weight-decay, or put a norm into the model",
    )


def _beta_large(c: Case) -> Found | None:
    jump = c.worst("jump")
    if c.target is None or jump <= JUMP or _flipped(c):
        return None
    return Found(
        jump,
        f"targets lie {100 * jump:.3g} % of ‖z‖ away from the activities: β = {c.target.beta:g} is too large",
        f"target.beta: {_nice(c.target.beta * 0.1 / jump)}",
    )


def _beta_small(c: Case) -> Found | None:
    t = c.last.target
    if c.target is None or t is None or t.rounding <= ROUNDING or not t.jump or _flipped(c) or _vanished(c):
        return None
    share, beta = 100 * min(t.rounding, 1.0), c.target.beta
    return Found(
        t.rounding,
        f"z − φ(h − βd) cancels: rounding makes up {share:.0f} % of it at β = {beta:g}",
        f"target.beta: {_nice(max(0.01, 10 * beta))}, or target.rule: gradient, the limit of small β",
    )


def _saturated(c: Case) -> Found | None:
    t, pushed = c.last.target, c.worst("pushed")
    if c.target is None or t is None or _flipped(c):
        return None
    if pushed > PUSHED:
        return Found(
            pushed,
            f"β d pushes {100 * pushed:.0f} % of the targets into the flat part of {c.phi}",
            f"target.beta (now {c.target.beta:g}): {_nice(c.target.beta / 10)}",
        )
    if t.saturated <= SATURATED or (c.last.dead or 0.0) > DEAD:
        return None
    return Found(
        t.saturated,
        f"{100 * t.saturated:.0f} % of the targets lie where {c.phi} is flat: their error neurons are near 0",
        "smaller initial weights, or a norm before the activation; a lower --lr; or another activation",
    )


def _dead(c: Case) -> Found | None:
    share, start = c.last.dead, c.first.dead
    if share is None or start is None or share <= DEAD or c.is_output:
        return None
    fix = "other initial weights" if start > DEAD else f"lower --lr (now {c.lr})"
    return Found(
        share,
        f"{100 * share:.0f} % of the units give the same for every sample ({100 * start:.0f} % at the start)",
        f"{fix}, or use an activation without a flat half (tanh, elu)",
    )


def _angle(c: Case) -> Found | None:
    angle = c.angle
    if angle is None or not RIGHT_ANGLE <= angle <= AWAY or _vanished(c):
        return None
    message = f"ΔW is at {angle:.0f}° to the gradient: the error carries no learning signal"
    return Found(-abs(90.0 - angle), message, _better_synapses(c))


def _away(c: Case) -> Found | None:
    angle = c.angle
    if angle is None or angle <= AWAY:
        return None
    return Found(angle, f"ΔW is at {angle:.0f}° to the gradient: following it raises the loss", _better_synapses(c))


def _better_synapses(c: Case) -> str:
    if "lra" in c.updates:
        return "synapses.update: local_readout (E6 with its printed sign does not align), or a smaller gamma"
    if any(map(reads_out, c.updates)):
        rate = c.diagnosis.settings.readout_rate
        return f"training.readout_rate (--readout-rate, now {rate:g}): {_nice(max(3.0, 3 * rate))}; or a lower --lr"
    if "fixed" in c.updates:
        return "synapses.update: kolen_pollack or local_readout; or more --steps, for fixed synapses align slowly"
    return "a lower --lr, more --steps, or let the region hear the output: {from: output, update: local_readout}"


def _vanished(c: Case) -> Found | None:
    root = c.diagnosis.last.of(c.diagnosis.plan.waves[0][0]).error
    if c.is_output or not c.last.error or not root or c.last.error >= VANISHED * root:
        return None
    fix = "a larger synapses.init scale, or let the region hear the output: {from: output}"
    if c.target is not None and c.target.rule == "lra" and not c.target.normalize:
        fix = "target.normalize: true, so that a link of the chain does not shrink errors by β"
    ratio = root / c.last.error
    return Found(
        ratio, f"the error neurons are {short(c.last.error)}, {short(ratio)} times smaller than at the output", fix
    )


def _large(c: Case) -> Found | None:
    ratio = c.last.relative_error
    if ratio is None or ratio <= LARGE or c.is_output:
        return None
    message = f"the error neurons are {short(ratio)} times as large as the activities"
    return Found(ratio, message, "a smaller synapses.init scale, or a lower --lr")


def _readout(c: Case) -> Found | None:
    now, start = c.last.readout_loss, c.first.readout_loss
    before, loss = c.diagnosis.probes[0].loss, c.diagnosis.last.loss
    if now is None or not start or now <= STUCK * start or loss >= LEARNED * before:
        return None
    rate = c.diagnosis.settings.readout_rate
    return Found(
        now / start,
        f"its read-out has a loss of {now:.3g} ({start:.3g} at the start) where the output has {loss:.3g}",
        f"training.readout_rate (--readout-rate, now {rate:g}): {_nice(max(3.0, 3 * rate))}",
    )


def _flips(c: Case) -> Found | None:
    root, t = c.diagnosis.plan.waves[0][0], c.last.target
    if not _flipped(c) or t is None or c.is_output:
        return None
    share = t.jump**2 / 4.0  # a unit that flips moves by 2, and ‖z‖² counts 1 for each
    if share >= FLIPS and all(p.source == root for p in c.pathways):
        return None
    return Found(
        1.0 - share,
        f"φ = sign is flat, so that errors are flips of units: β d flips {100 * share:.2g} % of them",
        "target.phi: tanh for these regions, or target.rescale: true where they hear the output",
    )


def _flipped(c: Case) -> bool:
    """Whether the target's φ only jumps (sign), so that its errors are flips of units."""
    return c.target is not None and c.phi == "sign"


def _idle(c: Case) -> Found | None:
    trained = c.target is not None and c.target.trainable and c.region.learns
    if not trained or not c.last.gradient or c.last.update or _flips(c):
        return None
    message = "its update is exactly 0, though the loss depends on it"
    return Found(1.0, message, "check that a pathway with live synapses reaches it; where units died, lower --lr")


_RULES: dict[str, Callable[[Case], Found | None]] = {
    "G003": _synapses,
    "G004": _activity,
    "G005": _beta_large,
    "G006": _beta_small,
    "G007": _saturated,
    "G008": _dead,
    "G009": _angle,
    "G010": _away,
    "G011": _vanished,
    "G012": _large,
    "G013": _readout,
    "G014": _flips,
    "G015": _idle,
}


def _nice(x: float) -> str:
    """A number with one significant digit."""
    return f"{float(f'{x:.0e}'):g}"
