"""Which shipped wiring a model starts from: the one that was measured to learn best on models like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reclra_compile.auto.settings import FEWEST_BLOCKS
from reclra_compile.ir import Region
from reclra_compile.spec.blocks import blocks
from reclra_compile.spec.graph import RegionGraph

FEW = 2  #: layers below the output up to which none of them is a third one, which `depth2` would make a relay


@dataclass(frozen=True, slots=True)
class Start:
    """A shipped wiring to start from, and the reason in a sentence; `groups` is the number of groups, 0 where none."""

    wiring: str
    why: str
    groups: int = 0


def starts(layers: Sequence[Region], output: str) -> tuple[Start, ...]:
    """Wirings to start from, the best first; the next is for models that the one before cannot wire.

    `layers` are the model's layer regions, in order, and `output` names the value that is the model's output.
    """
    graph = RegionGraph(tuple(layers), output)
    found = blocks(layers, graph.output)
    below = len(graph.layers) - 1
    maps = any(len(r.shape) > 1 for r in layers if r.parameters and r.name != graph.output)
    chosen: list[Start] = []
    if len(found) >= FEWEST_BLOCKS and any(len(b.layers) > 1 for b in found):
        chosen.append(Start("groups", (
            f"the model has {len(found)} blocks. Groups of them, with exact backpropagation inside, "
            "came closest to backprop on residual networks and transformers, where single layers learned far less; "
            "more groups are faster on as many devices, and learn less"
        ), groups=2))  # fmt: skip
    elif maps:
        chosen.append(Start("depth1_local", (
            "the model's layers give feature maps or sequences. Layers that learn from read-outs of their own were the "
            "best of the wirings by layers there; what hears the output's error alone outgrows its norm"
        )))  # fmt: skip
    elif not below:
        chosen.append(Start("depth1", (
            "the output is the model's only layer, and learns from the loss itself: no wiring makes a difference yet"
        )))  # fmt: skip
    elif below <= FEW:
        chosen.append(Start("depth1", (
            f"the model has {below} layer{'s' * (below != 1)} below the output, and each can hear the output: one wave"
        )))  # fmt: skip
    else:
        chosen.append(Start("depth2", (
            f"of {below} layers below the output every third one hears the output, and the others hear the layer that "
            "follows: the default, which learned a little better than depth1, with two or three waves in place of one"
        )))  # fmt: skip
    spare = [
        Start("depth1_local", "it asks the least of a model's layers"),
        Start("blocks", "single layers of this model cannot all have a target, blocks can"),
        Start("backprop", "only exact errors reach all regions of this model; change one region after the other"),
    ]
    return (*chosen, *(s for s in spare if s.wiring != chosen[0].wiring))
