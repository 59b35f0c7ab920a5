"""The order of interleaved 1F1B: each device has several parts of the model and changes between them in rounds."""

from __future__ import annotations

Action = tuple[str, int, int]  #: "F" or "B", stage, microbatch


def interleaved_lanes(parts: int, devices: int, microbatches: int) -> tuple[tuple[Action, ...], ...] | None:
    """What each device does in order, `parts` stages on each; None where the microbatches cannot be cut into rounds.

    A round is as many microbatches as there are devices, or all where there are fewer; each part takes a round in turn.
    A device runs 2 (p − 1 − d) + (v − 1)·round forward passes, then one forward and one backward pass alternately.
    """
    rounds = max(1, microbatches // devices)
    if parts < 1 or microbatches % rounds:
        return None
    size, total = microbatches // rounds, microbatches * parts
    lanes: list[tuple[Action, ...]] = []
    for d in range(devices):
        ahead = min(total, 2 * (devices - 1 - d) + (parts - 1) * size)
        forward = [_action("F", k, d, parts, devices, size) for k in range(total)]
        backward = [_action("B", k, d, parts, devices, size) for k in range(total)]
        lane = forward[:ahead]
        for f, b in zip(forward[ahead:], backward, strict=False):
            lane += [f, b]
        lanes.append((*lane, *backward[total - ahead :]))
    return tuple(lanes)


def _action(kind: str, step: int, device: int, parts: int, devices: int, size: int) -> Action:
    """The `step`-th pass of this kind on `device`."""
    part = step // size % parts
    if kind == "B":
        part = parts - 1 - part
    return kind, part * devices + device, step // (size * parts) * size + step % size
