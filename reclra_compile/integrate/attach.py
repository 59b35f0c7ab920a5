"""`attach` and `detach`: a model that trains with a wiring in the loop that it is in already."""

from __future__ import annotations

from typing import Any, TypeVar

import torch.nn.functional as F
from torch import nn

from reclra_compile.compiler import ExampleInputs
from reclra_compile.errors import Fault, UserError
from reclra_compile.integrate.attachment import Attachment, LossScale
from reclra_compile.integrate.classes import PREFIX, is_attached, restored, swapped, unspoilt
from reclra_compile.integrate.linking import Settings
from reclra_compile.integrate.reader import LossFunctions
from reclra_compile.integrate.unchanged import refuse_sharded
from reclra_compile.ir import Plan
from reclra_compile.planning import Unreached, WiringSource

M = TypeVar("M", bound=nn.Module)


def attach(
    model: M,
    example_inputs: ExampleInputs,
    wiring: WiringSource | None = None,
    *,
    plan: Plan | None = None,
    loss_fn: LossFunctions = F.cross_entropy,
    reduction: str | None = None,
    seed: int = 0,
    granularity: str | None = None,
    output: str | int | None = None,
    unreached: Unreached = "refuse",
    loss_scale: LossScale = None,
    save_synapses: bool = False,
) -> M:
    """Let `model` train with `wiring` in its own loop: `loss.backward()` then fills `.grad` by the schedule.

    Returns the same object, whose parameters now include the error synapses: make the optimizer afterwards.
    `loss_fn` and `reduction` say what the loop's loss is; other arguments are those of `compile`. `loss_scale`: what
    the loop multiplies the loss with, a number or a function without arguments such as `scaler.get_scale`; cross
    entropy needs none. With `save_synapses`, `model.state_dict()` has the synapses too. `model.reclra` is the
    Attachment. Raises UserError (A001–A004, A009), and what `compile` does.
    """
    _check(model)
    settings = Settings(loss_fn, reduction, seed, output)
    with unspoilt(model):
        made = Attachment.new(
            model, example_inputs, settings, plan, wiring, granularity, unreached, loss_scale, save_synapses
        )
    attached: M = swapped(model, made)
    return attached


def detach(model: M) -> M:
    """The model itself, trained, without what was attached to it; raises UserError (A002) where nothing is, and (A011)
    where the model has another class since.
    """
    if not is_attached(model):
        raise UserError(Fault("A002", f"nothing is attached to this {type(model).__name__}"))
    restored(model)
    return model


def _check(model: Any) -> None:
    """Raise UserError (A001, A009) for a model that cannot be attached as it is."""
    kind = type(model).__name__
    if is_attached(model):
        raise UserError(Fault("A001", f"this {kind} is attached already", fix="call rc.detach(model) before"))
    part = next((name for name, m in model.named_modules() if is_attached(m)), None)
    if part is not None:
        fix = f"call rc.detach on it, or leave this {kind} as it is and train it in your loop"
        raise UserError(Fault("A001", f"a part of this {kind}, '{part}', is attached already", fix=fix))
    if kind in ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel", "OptimizedModule"):
        raise UserError(Fault("A001", f"{kind} wraps a model already", fix="attach the model, then wrap it"))
    refuse_sharded(model)
    if "forward" in vars(model):
        fix = "attach the model before a library (such as Accelerate's prepare) wraps it"
        raise UserError(Fault("A001", f"the forward() of this {kind} has been replaced on the object itself", fix=fix))
    if hasattr(model, PREFIX):
        raise UserError(Fault("A001", f"this {kind} has an attribute '{PREFIX}' of its own", fix="rename it"))
