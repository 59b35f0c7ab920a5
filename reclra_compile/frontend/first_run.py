"""Run a loaded model once, so that its own errors are not taken for the compiler's."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from reclra_compile.errors import Fault, Location, ModelError
from reclra_compile.frontend.probe import model_fails, writes_parameter
from reclra_compile.frontend.share import ParameterWritten, guarded, random_fork, shared_copy
from reclra_compile.frontend.user_code import place, summary


def run_once(model: nn.Module, inputs: tuple[Any, ...] | dict[str, Any], module: ModuleType) -> None:
    """Run a copy of the model; raises ModelError (M009, M010, M106) where that fails."""
    tensors = tuple(inputs.values()) if isinstance(inputs, dict) else inputs
    if any(t.is_meta for t in (*model.parameters(), *model.buffers(), *tensors)):
        return
    where = place(module, "example_inputs")
    try:
        twin = shared_copy(model)  # in train mode, as the compiled model will run
    except Exception as error:
        raise ModelError(_not_copyable(model, error, place(module))) from error
    try:
        with torch.no_grad(), random_fork(model), guarded(model):
            if isinstance(inputs, dict):
                twin(**inputs)
            else:
                twin(*inputs)
    except ParameterWritten as error:
        raise ModelError(writes_parameter(error)) from error
    except Exception as error:
        raise ModelError(model_fails(error, tensors, "`example_inputs`", where)) from error


def _not_copyable(model: nn.Module, error: Exception, where: Location) -> Fault:
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                full = f"{path}.{name}" if path else name
                return Fault("M009", f"the model keeps '{full}', a tensor computed from its parameters", where,
                             "compute it in forward(), or keep a detached copy with register_buffer")  # fmt: skip
    return Fault("M009", f"the model cannot be copied ({summary(error)})", where,
                 "keep only parameters, buffers and plain Python values in it")  # fmt: skip
