"""From a plan and a model to the part of both that one rank holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import nn

from reclra_compile.distributed.evaluation import evaluated
from reclra_compile.distributed.initial import initialise, share
from reclra_compile.distributed.network import Network
from reclra_compile.distributed.program import RankProgram
from reclra_compile.distributed.recording import Recording
from reclra_compile.errors import Fault, RankError
from reclra_compile.frontend.cut import Cut
from reclra_compile.frontend.extract import body, whole
from reclra_compile.frontend.trace import Traced
from reclra_compile.ir import Plan
from reclra_compile.runtime.link import link
from reclra_compile.runtime.loss import LossFunction

Init = Literal["build", "regions"]


def place(
    plan: Plan, traced: Traced, cuts: tuple[Cut, ...], loss_fn: LossFunction, seed: int, reduction: str | None,
    output: str | int | None, mesh: Network, record: Recording | None = None,
    evaluating: tuple[Traced, tuple[Cut, ...]] | None = None,
) -> RankProgram:  # fmt: skip
    """The program of one rank; where ranks are apart, what `traced.model` holds for others is on meta afterwards.

    Parameters and buffers that are on meta are drawn by `seed` and their names, each on the rank that holds it; others
    are taken as they are. `evaluating`: the graph of eval mode, where it is another. Raises RankError: R102 where the
    plan is for another number of stages, R113 for what nothing initialises, R115
    and R116 for what cannot be apart.
    """
    if len(plan.devices) != mesh.stages:
        raise RankError(
            Fault("R102", f"the plan is for {len(plan.devices)} devices, the ranks are {mesh.stages} stages",
                  fix=f"start {len(plan.devices)} processes for each replica")
        )  # fmt: skip
    check_apart(plan, mesh)
    model, placed = traced.model, dict(plan.placement.regions)
    own = frozenset(r for r, device in placed.items() if device == mesh.stage)
    by_name = {c.name: c for c in cuts}
    pieces = {name: whole(traced, by_name[name]).module for name in placed}
    held = _names(model, (pieces[r] for r in own))
    _check_statistics(model, pieces, placed)
    if mesh.stage == 0:
        held |= _unused(model, pieces.values())
    copied = {p.source for p in plan.pathways if p.init == "transpose" and p.target in own} - own
    lent = _names(model, (body(traced, by_name[r]).module for r in copied))
    roots = [model, traced.module, *([evaluating[0].module] if evaluating else [])]
    if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
        initialise(roots, held | lent, seed, mesh.device, record=record)
    if mesh.apart:  # on meta too, where a constructor may have made real tensors
        share(roots, held | lent)
    _move(model, held | (lent if mesh.apart else set()), mesh.device)
    linked, synapses = link(plan, traced, cuts, loss_fn, seed, reduction, own, mesh.device)
    if mesh.apart and lent - held:
        regions = [m for modules in linked.modules.values() for m in modules]
        share([*roots, *regions], held)
    evaluates = {c.name: evaluated(evaluating[0], c)[1] for c in evaluating[1] if c.name in own} if evaluating else {}
    return RankProgram(plan, model, linked, synapses, output, mesh, frozenset(held), evaluates)


def check_apart(plan: Plan, mesh: Network) -> None:
    """Raise RankError (R115) where an update runs a region whose weights are on another rank."""
    placed = dict(plan.placement.regions)
    for p in plan.pathways:
        if mesh.apart and p.update == "autoencoding" and placed[p.source] != placed[p.target]:
            raise RankError(
                Fault("R115", f"the learned inverse '{p.name}' runs region '{p.source}', whose weights are on another "
                      f"rank than those of '{p.target}'", fix="train with --one-process, rc.threaded, or on one device")
            )  # fmt: skip


def _check_statistics(model: nn.Module, pieces: Mapping[str, nn.Module], placed: Mapping[str, int]) -> None:
    """Raise RankError (R116) where regions of several stages would each keep the statistics of one module."""
    counted = {id(b) for m in model.modules() if getattr(m, "track_running_stats", False) for b in m.buffers(False)}
    seen: dict[int, str] = {}
    for region, piece in pieces.items():
        for name, b in piece.named_buffers():
            first = seen.setdefault(id(b), region) if id(b) in counted else region
            if placed[first] != placed[region]:
                raise RankError(
                    Fault("R116", f"regions '{first}' and '{region}' share the batch statistics '{name}', and are on "
                          "different devices", fix="pin both to one device, with --pin")
                )  # fmt: skip


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])


def _names(model: nn.Module, modules: Iterable[nn.Module]) -> set[str]:
    """The model's names of the parameters and buffers that `modules` hold, all names of those that are tied."""
    ids = {id(t) for m in modules for t in (*m.parameters(), *m.buffers())}
    return {name for name, t in _tensors(model).items() if id(t) in ids}


def _unused(model: nn.Module, modules: Iterable[nn.Module]) -> set[str]:
    """The names of what no region holds."""
    return set(_tensors(model)) - _names(model, modules)


def _move(model: nn.Module, names: Iterable[str], device: torch.device) -> None:
    """Bring parameters and buffers to the rank's device, as the objects that they are."""
    tensors = _tensors(model)
    for name in names:
        if tensors[name].device != device:
            tensors[name].data = tensors[name].data.to(device)
