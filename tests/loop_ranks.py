"""What ranks run in tests/test_loops_ddp.py."""

from __future__ import annotations

from typing import Any

from loops import double, loop, weights
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

STEPS = 4
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "depth2": {"wiring": "depth2"},
    "backprop": {"wiring": "backprop"},
    "unused parameters": {"find_unused_parameters": True},
    "bucket views": {"gradient_as_bucket_view": True, "bucket_cap_mb": 0.02},
    "static graph": {"static_graph": True},
    "no_sync": {"parts": 2},
}


def train() -> dict[str, dict[str, Any]]:
    """Every variant of the loop on this rank: what the model, the synapses and a communication hook ended with."""
    ddp, seen = loop("ddp"), [0]

    def hook(process_group, bucket):  # torch reads annotations, and wants types in them, not text
        seen[0] += sum(g.numel() for g in bucket.gradients())
        return allreduce_hook(process_group, bucket)

    class Watched(DistributedDataParallel):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.register_comm_hook(None, hook)

    ddp.DistributedDataParallel = Watched
    found: dict[str, dict[str, Any]] = {}
    with double():
        for name, options in VARIANTS.items():
            seen[0] = 0
            model = ddp.main(epochs=2, steps=STEPS, **options).module
            synapses = {k: v.detach() for k, v in model.reclra.synapses.named_parameters()}
            learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
            found[name] = {"weights": weights(model), "synapses": synapses, "reduced": seen[0] / learned}
    return found
