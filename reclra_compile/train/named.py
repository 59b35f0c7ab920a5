"""What a run consists of, by names that are the same on one device and on ranks that each hold a part of it.

`model/…` are parameters and buffers by their state_dict names, `synapses/…` the error synapses; `optimizer/<what>/…`
and `before/…` (the weights of the step before, of staleness 1) end in the name of a parameter. `random/<stage>/…` are
torch's generators, `random/order` the one that batches are drawn with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reclra_compile.runtime.program import Program
from reclra_compile.train.loop import Run

ORDER = "random/order"
#: what an optimizer keeps of each parameter, once that has had a gradient
ADAM = frozenset({"step", "exp_avg", "exp_avg_sq"})
KEPT = {"sgd": frozenset({"momentum_buffer"}), "adam": ADAM, "adamw": ADAM}


class Source(Protocol):
    """A checkpoint that is read: facts about the run, and tensors by name, each read when it is asked for."""

    head: dict[str, Any]

    @property
    def names(self) -> Collection[str]:
        """All tensors' names."""
        ...

    def take(self, name: str) -> Tensor:
        """A tensor of the caller's own, on the CPU; raises ValueError where it is missing or damaged."""
        ...


def parameter_names(program: Program) -> dict[int, str]:
    """The name of each parameter that learns, by its id, in the order of `program.parameters()`."""
    named = {id(p): f"model/{name}" for name, p in program.model.named_parameters()}
    named |= {id(p): f"synapses/{name}" for name, p in program.synapses.named_parameters()}
    return {id(p): named[id(p)] for p in program.parameters()}


def weights(run: Run) -> Iterator[tuple[str, Tensor]]:
    """Everything of a run that this process holds, but random states."""
    program = run.program
    names = parameter_names(program)
    yield from ((f"model/{name}", x) for name, x in program.named_state().items())
    yield from ((f"synapses/{name}", x) for name, x in program.synapses.state_dict().items())
    for p, state in run.optimizer.state.items():
        yield from ((f"optimizer/{what}/{names[id(p)]}", x) for what, x in state.items() if isinstance(x, Tensor))
    before = program.state_dict().get("before") or ()
    yield from ((f"before/{name}", x) for name, x in zip(names.values(), before, strict=bool(before)))


def random_states(run: Run) -> dict[str, Tensor]:
    """The states of torch's generators, which dropout draws from; of CUDA's that of this rank, or of all devices."""
    peers = run.program.peers
    place = f"random/{peers.stage}"
    found = {f"{place}/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        several = [torch.cuda.get_rng_state()] if peers.count > 1 else torch.cuda.get_rng_state_all()
        found |= {f"{place}/cuda{k}": state for k, state in enumerate(several)}
    return found


def restore(run: Run, source: Source) -> None:
    """Put what a checkpoint holds into a run: whatever this process holds of it."""
    program = run.program
    if program.peers.count == 1:
        _restore_whole(program.model, source)
    else:
        for name, x in program.named_state().items():
            value = source.take(f"model/{name}")
            if value.shape != x.shape:
                raise ValueError(f"size mismatch for {name}: {tuple(value.shape)}, not {tuple(x.shape)}")
            with torch.no_grad():
                x.copy_(value)
    state: dict[str, Any] = {
        "fingerprint": program.plan.fingerprint,
        "synapses": {name: source.take(f"synapses/{name}") for name in program.synapses.state_dict()},
    }
    if program.plan.schedule.staleness:
        own = parameter_names(program).values()
        state["before"] = [source.take(f"before/{n}") for n in own if f"before/{n}" in source.names]
    program.load_state_dict(state)
    _restore_optimizer(run, source)
    _restore_random(run, source)


def _restore_whole(model: nn.Module, source: Source) -> None:
    """As the model itself wants it: whatever its modules keep, and nothing else, has to be there."""
    state = model.state_dict()
    there = [name[6:] for name in source.names if name.startswith("model/")]
    for name in (*state, *there):
        state[name] = source.take(f"model/{name}")
    model.load_state_dict(state)


def _restore_optimizer(run: Run, source: Source) -> None:
    """Its groups are those of the settings, which are the same; what it keeps of each parameter is by name."""
    names = parameter_names(run.program)
    kept: dict[str, list[str]] = {}
    for full in source.names:
        if full.startswith("optimizer/"):
            _, what, name = full.split("/", 2)
            kept.setdefault(name, []).append(what)
    ordered: list[nn.Parameter] = [p for group in run.optimizer.param_groups for p in group["params"]]
    for name, there in kept.items():
        if missing := sorted(KEPT[run.settings.optimizer] - set(there)):
            raise ValueError(f"it has no optimizer/{missing[0]}/{name}")
    states = {
        k: {what: source.take(f"optimizer/{what}/{names[id(p)]}") for what in kept[names[id(p)]]}
        for k, p in enumerate(ordered)
        if names[id(p)] in kept
    }
    for k, state in states.items():
        if any(x.ndim and x.shape != ordered[k].shape for x in state.values()):
            raise ValueError(f"what the optimizer keeps of {names[id(ordered[k])]} is of another shape")
    run.optimizer.load_state_dict({**run.optimizer.state_dict(), "state": states})


def _restore_random(run: Run, source: Source) -> None:
    """This stage's states where the stages are the same, or else those of stage 0: all draw the same numbers."""
    run.generator.set_state(source.take(ORDER))
    peers = run.program.peers
    own = f"random/{peers.stage}"
    same = source.head.get("stages", 1) == peers.stages and f"{own}/cpu" in source.names
    place = own if same else "random/0"
    torch.set_rng_state(source.take(f"{place}/cpu"))
    if not torch.cuda.is_available():
        return
    for k in range(torch.cuda.device_count() if peers.count == 1 else 1):
        if f"{place}/cuda{k}" in source.names:
            device = torch.cuda.current_device() if peers.count > 1 else k
            torch.cuda.set_rng_state(source.take(f"{place}/cuda{k}"), device)
