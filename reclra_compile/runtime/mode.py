"""Let regions run in the model's mode: what was traced in train mode may evaluate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

from reclra_compile.errors import Fault, TrainingError
from reclra_compile.runtime.randomness import bound_to_train_mode


@contextlib.contextmanager
def in_mode_of(model: nn.Module, regions: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, regions are in the model's mode; raises TrainingError (T027) where they cannot be."""
    bound = bound_to_train_mode(regions) if not model.training else None
    if bound:
        raise TrainingError(
            Fault("T027", f"'{bound}' is traced in train mode, so the regions cannot run in eval mode",
                  fix="write it as a module, such as nn.Dropout or nn.BatchNorm2d, in place of a function")
        )  # fmt: skip
    modes = {m: m.training for region in regions for m in region.modules()}
    for m in regions:
        m.train(model.training)
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode
