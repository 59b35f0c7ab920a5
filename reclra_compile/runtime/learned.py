"""What learns in a program: the model's own parameters and the error synapses, by kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torch import nn

from reclra_compile.errors import Fault, PlanError
from reclra_compile.ir import Plan
from reclra_compile.rules.catalogue import reads_out
from reclra_compile.runtime.linked import Linked

Self = TypeVar("Self", bound="Learned")


class Learned:
    """A plan's model and its `synapses`, a module as well: move, save or inspect it like any other."""

    def __init__(self, plan: Plan, model: nn.Module, linked: Linked, synapses: nn.Module) -> None:
        self.plan, self.model, self.synapses, self._linked = plan, model, synapses, linked

    def model_parameters(self) -> Iterator[nn.Parameter]:
        """The model's own parameters."""
        return self.model.parameters()

    def synapse_parameters(self) -> Iterator[nn.Parameter]:
        """The error synapses that learn."""
        return (p for p in self.synapses.parameters() if p.requires_grad)

    def readout_parameters(self) -> Iterator[nn.Parameter]:
        """The learned synapses that are local read-outs (E9): a part of `synapse_parameters`."""
        for p in self.plan.pathways:
            if reads_out(p.update) and p.name in self._linked.synapses:
                yield from self._linked.synapses[p.name].parameters()

    def rated_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Synapses with a learning rate of their own, by its setting: readout_rate, inverse_rate, mirror_rate."""
        found: dict[str, list[nn.Parameter]] = {"readout_rate": list(self.readout_parameters())}
        inverses = [p for p in self.plan.pathways if p.update == "autoencoding" and p.name in self._linked.synapses]
        found["inverse_rate"] = [q for p in inverses for q in self._linked.synapses[p.name].parameters()]
        mirrors = dict.fromkeys(p.source for p in self.plan.pathways if p.update == "weight_mirror")
        found["mirror_rate"] = [B for name in mirrors for _, B, _ in self._linked.mirrors.get(name, [])]
        return {setting: parameters for setting, parameters in found.items() if parameters}

    def parameters(self) -> Iterator[nn.Parameter]:
        """Everything that learns: the model's parameters, then the error synapses."""
        yield from self.model_parameters()
        yield from self.synapse_parameters()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear `.grad` of the model and of the synapses."""
        self.model.zero_grad(set_to_none)
        self.synapses.zero_grad(set_to_none)

    def clip(self, max_norm: float) -> None:
        """Scale all gradients so that their norm, over all processes, is at most `max_norm`."""
        nn.utils.clip_grad_norm_(list(self.parameters()), max_norm)

    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """Move model and synapses, as `nn.Module.to`."""
        self.model.to(*args, **kwargs)
        self.synapses.to(*args, **kwargs)
        return self


def restore(synapses: nn.Module, state: Mapping[str, Any], plan: Plan) -> None:
    """Load what `state_dict` of a program of `plan` gave; raises PlanError (P011) for another model's or wiring's."""
    if state.get("fingerprint") != plan.fingerprint:
        raise PlanError(Fault("P011", "these synapses belong to another model", fix="load the matching checkpoint"))
    try:
        synapses.load_state_dict(state["synapses"])
    except RuntimeError as error:
        raise PlanError(Fault("P011", f"these synapses belong to another wiring: {error}")) from error
