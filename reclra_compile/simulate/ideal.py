"""Patterns of equal stages: what error pathways come to where every stage costs the same and links are free."""

from __future__ import annotations

import math
from itertools import pairwise

from reclra_compile.simulate.pattern import Builder, Pattern


def output_fed(stages: int, forward_us: float = 1.0, error_us: float = 1.0) -> Pattern:
    """Depth 1: every stage hears the last one's error, and its error phase is the weight gradient alone.

    With F = E = 1 a step takes 2M + P − 1. A stage holds ⌈(P − 1 − s) ÷ 2⌉ + 1 microbatches.
    """
    build = Builder()
    forward = _forward_chain(build, stages, forward_us)
    period = forward_us + error_us
    for s in range(stages):
        turn = math.ceil((stages - 1 - s) * forward_us / period)
        error = build.node(s, error_us, turn, f"E{s}", freed=1.0)
        build.edge(forward[-1], error)
        if s < stages - 1:
            build.edge(forward[s], error)
    return build.pattern(stages)


def groups(
    stages: int, forward_us: float = 1.0, error_us: float = 2.0, waits_for_output: bool = False
) -> Pattern:
    """Groups with exact adjoints inside: the error phase costs both gradients, and comes from the group's own read-out
    or, where it `waits_for_output`, from the last stage. With F = 1 and E = 2 a step takes 3M + P − 1.
    """
    build = Builder()
    forward = _forward_chain(build, stages, forward_us)
    for s in range(stages):
        turn = math.ceil((stages - 1 - s) * forward_us / (forward_us + error_us)) if waits_for_output else 0
        error = build.node(s, error_us, turn, f"E{s}", freed=1.0)
        build.edge(forward[-1] if waits_for_output else forward[s], error)
    return build.pattern(stages)


def _forward_chain(build: Builder, stages: int, forward_us: float) -> list[int]:
    nodes = [build.node(s, forward_us, 0, f"F{s}", held=1.0) for s in range(stages)]
    for a, b in pairwise(nodes):
        build.edge(a, b)
    return nodes
