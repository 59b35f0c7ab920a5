"""The comments of a starter wiring: what each key is and may be, taken from the schema and the catalogue of rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from reclra_compile.rules.catalogue import AUTO_UPDATE, INITS, KERNELS, TARGETS, UPDATES
from reclra_compile.spec.schema import PathwaySpec, ScheduleSpec, Synapses, TargetSpec, TrainingSection, Wiring

#: sections in the order of the file, with what is written, commented out, where the wiring has none
EXAMPLES: dict[str, str] = {
    "name": "mine",
    "about": "what is special about it",
    "regions": "{granularity: block}",
    "inside": "backprop",
    "target": "{rule: lra, beta: 0.01, normalize: true}",
    "pathways": "",
    "synapses": "{kernel: auto, update: auto, memory: 256MiB}",
    "overrides": "",
    "frozen": "",
    "memory": "{activations: 2GiB}",
    "schedule": "{devices: 4, microbatches: 8}",
    "placement": "",
    "training": "{optimizer: adamw, lr: 0.001, batch_size: 64, epochs: 10}",
}
GRAINS = ("layer: each layer with its norm and activation", "block: each residual or transformer block",
          "{groups: K}: K runs of blocks, as equal in cost as blocks allow")  # fmt: skip
SELECTORS = (
    "all                       every region that can have a target",
    "rest                      those that no entry above targets",
    "NAME, \"block1.*\"          a region by name, or a glob",
    "[NAME, NAME]              a list of them",
    "{every: 3}                layers 3, 6, 9, …; {every: 3, start: 2} is 2, 5, 8, …",
    "{layers: [2, 5, 8]}       layers by number",
    "{narrowest: 3}            the three with the fewest neurons",
    "{phi: relu}               those with this activation",
)
SOURCES = (
    "output     the output region, whose error comes from the loss",
    "next       the first region with parameters that follows",
    "consumers  all that read it: the model's own edges, as in backprop",
    "relay      the nearest region downstream that an entry above targets",
    "NAME       regions by name, or any selector",
)


def about(part: type[BaseModel], key: str) -> str:
    """What the schema says of a key."""
    return next(f.description or "" for n, f in part.model_fields.items() if key == (f.alias or n))


def above(key: str) -> list[str]:
    """The lines of comment above a section of the file; a line that begins with blanks is kept as it is."""
    lines = [f"{key}: {about(Wiring, key)}"]
    if key == "regions":
        lines += [f"  {line}" for line in GRAINS]
    if key == "target":
        lines += ["  rule:", *_choices({n: TARGETS[n].about for n in TARGETS.known})]
        lines += [f"  {k}: {about(TargetSpec, k)}" for k in ("beta", "normalize", "phi", "kappa", "p", "q", "rescale")]
    if key == "pathways":
        lines += ["  from:", *(f"    {line}" for line in SOURCES), "  to:", *(f"    {line}" for line in SELECTORS)]
        lines += [f"  {k}: {about(PathwaySpec, k)}" for k in ("kernel", "init", "update")]
    if key == "synapses":
        lines += ["  kernel:", *_choices({n: KERNELS[n].about for n in KERNELS})]
        updates = {"auto": AUTO_UPDATE.about, **{n: UPDATES[n].about for n in UPDATES.known}}
        lines += ["  update:", *_choices(updates), "  init:", *_choices({n: INITS[n].about for n in INITS})]
        lines += [f"  {k}: {about(Synapses, k)}" for k in ("max_entries", "cells", "memory")]
    if key == "schedule":
        lines += [f"  {k}: {about(ScheduleSpec, k)}" for k in ("devices", "microbatches", "staleness")]
    if key == "training":
        lines += [f"  {k}: {about(TrainingSection, k)}" for k in TrainingSection.model_fields]
    return lines


def _choices(known: Mapping[str, Any]) -> list[str]:
    wide = max(map(len, known)) + 2
    return [f"    {name.ljust(wide)}{text}" for name, text in known.items()]
