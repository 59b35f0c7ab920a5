"""What a model's file brings to training beside the model: `data` and `loss_fn`."""

from __future__ import annotations

import inspect
from types import ModuleType

import torch.nn.functional as F
from torch import nn

from reclra_compile.data.own import OwnData, own_data
from reclra_compile.errors import DataError, Fault
from reclra_compile.frontend.load_model import Loaded
from reclra_compile.frontend.user_code import place, run
from reclra_compile.runtime.loss import LossFunction


def brought_data(loaded: Loaded, validation: int = 0) -> OwnData | None:
    """The file's `data` or `data()`, made once; None where it has none.

    Raises ModelError (M003) where data() fails, and DataError (D006, D011, D013).
    """
    value = loaded.extra("data")
    if value is None or isinstance(value, ModuleType):  # `import data` is not meant
        return None
    file = loaded.where.file
    return own_data(run(value, file, "calling data()") if callable(value) else value, file, validation)


def brought_loss(loaded: Loaded) -> LossFunction:
    """The file's `loss_fn`, or else cross entropy; raises DataError (D014) where it cannot be called."""
    value = loaded.extra("loss_fn")
    if value is None:
        return F.cross_entropy
    if callable(value) and not (inspect.isclass(value) and issubclass(value, nn.Module)):
        loss_fn: LossFunction = value
        return loss_fn
    assert loaded.module is not None
    made = inspect.isclass(value)
    found, fix = f"a {type(value).__name__}", "define loss_fn(output, target), which returns a scalar tensor"
    if made:
        found, fix = f"the class {value.__name__}, not a loss", f"make one: loss_fn = {value.__name__}()"
    raise DataError(Fault("D014", f"`loss_fn` is {found}", place(loaded.module, "loss_fn"), fix))
