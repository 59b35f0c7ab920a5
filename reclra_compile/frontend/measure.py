"""Shapes, FLOPs and bytes of each region, found on the meta device: no memory, no arithmetic."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from reclra_compile.errors import Fault, ModelError
from reclra_compile.frontend import ops
from reclra_compile.frontend.attention import fused_attention
from reclra_compile.frontend.cut import Cut, location_of, source_of
from reclra_compile.frontend.extract import Piece, extract, on_meta
from reclra_compile.frontend.features import above, channel_axis, window
from reclra_compile.frontend.trace import Traced
from reclra_compile.frontend.traffic import Traffic, tensor_bytes
from reclra_compile.ir import Region


def measure(traced: Traced, cuts: tuple[Cut, ...]) -> tuple[Region, ...]:
    """Region descriptions for the cuts, in order; raises ModelError (M204) where a region cannot run on meta."""
    names = value_names(traced, cuts)
    canonical = {id(p): n for n, p in traced.model.named_parameters()}
    values: dict[fx.Node, Any] = {
        node: x.to("meta")
        for node, x in zip((n for n in traced.graph.nodes if n.op == "placeholder"), traced.inputs, strict=True)
    }
    return tuple(_measure(traced, cut, names, canonical, values) for cut in cuts)


def value_names(traced: Traced, cuts: tuple[Cut, ...]) -> dict[fx.Node, str]:
    """Names of the values that cross region boundaries: x0, x1, … then z.R, or o.R after a tail."""
    placeholders = [n for n in traced.graph.nodes if n.op == "placeholder"]
    names = {n: f"x{i}" for i, n in enumerate(placeholders)}
    for cut in cuts:
        letter = "o" if cut.tail else "z"
        for k, node in enumerate(cut.outputs):
            names[node] = f"{letter}.{cut.name}" + (f"#{k}" if k else "")
    return names


def _measure(
    traced: Traced,
    cut: Cut,
    names: dict[fx.Node, str],
    canonical: dict[int, str],
    values: dict[fx.Node, Any],
) -> Region:
    piece = extract(traced, (cut.h, cut.z, *cut.outputs), cut.inputs)
    own = list(piece.module.parameters())
    try:
        results, spent = _run_on_meta(piece, [values[n] for n in piece.inputs])
    except Exception as error:
        raise ModelError(
            Fault(
                "M204",
                f"region '{cut.name}' cannot be measured without data ({type(error).__name__}: {error})",
                location_of(source_of(cut, traced)),
                "keep operations whose result shape depends on tensor contents out of the forward pass",
            )
        ) from error
    values.update(zip((cut.h, cut.z, *cut.outputs), results, strict=True))
    z = results[1]
    if not isinstance(z, Tensor):
        raise ModelError(Fault("M203", f"the output of region '{cut.name}' is {type(z).__name__}, not a tensor"))
    sizes = Counter[str]()
    for p in own:
        sizes[canonical.get(id(p), "?")] += p.numel() * p.element_size()
    return Region(
        name=cut.name,
        op=_operations([_op(n, traced) for n in cut.anchors]),
        phi=cut.phi[0] if cut.phi else "identity",
        inputs=tuple(names[n] for n in cut.inputs),
        outputs=tuple(names[n] for n in cut.outputs),
        shape=tuple(z.shape[1:]),
        batched=bool(z.ndim) and z.shape[0] == traced.inputs[0].shape[0],
        parameters=tuple(sizes),
        parameter_count=sum(p.numel() for p in own),
        weight_count=sum(p.numel() for p in own if p.ndim > 1),
        forward_flops=spent.forward.flops,
        weight_flops=spent.weight.flops,
        input_flops=spent.input.flops,
        saved_bytes=spent.saved_bytes,
        forward_bytes=spent.forward.bytes,
        weight_bytes=spent.weight.bytes,
        input_bytes=spent.input.bytes,
        output_bytes=tuple(tensor_bytes(o) if isinstance(o, Tensor) else 0 for o in results[2:]),
        z_bytes=tensor_bytes(z),
        parameter_sizes=tuple(sizes.values()),
        tail=cut.tail,
        channel_axis=channel_axis(cut, traced, tuple(z.shape[1:])),
        window=window(cut, traced),
        norm=any(ops.is_norm(n, traced.modules) for n in above(cut)),
        frozen=bool(own) and not any(p.requires_grad for p in own),
        layers=cut.layers,
        source=source_of(cut, traced),
    )


def _operations(names: list[str]) -> str:
    """What the region's layers are, in order of appearance: Conv2d×2+Linear."""
    counts = Counter(names)
    return "+".join(f"{n}×{k}" if k > 1 else n for n, k in counts.items()) or "glue"


def _op(node: fx.Node, traced: Traced) -> str:
    if node.op == "call_module":
        return type(traced.modules[str(node.target)]).__name__
    return ops.name_of(node, traced.modules)


@dataclass(frozen=True, slots=True)
class _Work:
    """FLOPs, and bytes read and written."""

    flops: int = 0
    bytes: int = 0

    def beyond(self, other: _Work) -> _Work:
        """What this does and `other` does not."""
        return _Work(self.flops - other.flops, max(0, self.bytes - other.bytes))


@dataclass(frozen=True, slots=True)
class _Spent:
    """What the forward pass costs, the VJP to the parameters, and what the VJP to the inputs adds to it; and the bytes
    that autograd keeps beside parameters and inputs.
    """

    forward: _Work
    weight: _Work = _Work()
    input: _Work = _Work()
    saved_bytes: int = 0


def _run_on_meta(piece: Piece, inputs: list[Any]) -> tuple[tuple[Any, ...], _Spent]:
    """Outputs, and what they and their VJPs cost.

    The model's own inputs need no VJP, so the first layer has no dX, as in autograd.
    """
    module = piece.module
    on_meta(module)
    state: dict[str, Tensor] = {
        n: _meta(t)
        for n, t in [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    }
    leaves = [_leaf(x, n.op != "placeholder") for x, n in zip(inputs, piece.inputs, strict=True)]
    with torch.enable_grad():
        saved: dict[int, tuple[Tensor, int]] = {}
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: _noted(t, saved), lambda t: t)
        with torch.device("meta"), hooks, fused_attention(), Traffic() as traffic:
            results = torch.func.functional_call(module, state, tuple(leaves))
        forward = _Work(traffic.flops, traffic.bytes)
        h = results[0]
        if not isinstance(h, Tensor) or not h.requires_grad:
            return results, _Spent(forward)
        given = {_storage(t) for t in (*state.values(), *leaves) if isinstance(t, Tensor)}
        kept = sum(size for key, (_, size) in saved.items() if key not in given)
        learned = [t for t in state.values() if t.requires_grad]
        received = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
        weight = _vjp(h, learned)
        both = _vjp(h, learned + received)
    return results, _Spent(forward, weight, both.beyond(weight), kept)


def _noted(t: Tensor, saved: dict[int, tuple[Tensor, int]]) -> Tensor:
    """Note a tensor that autograd keeps, once per storage; the tensor stays alive, and so its storage's number."""
    saved.setdefault(_storage(t), (t, t.untyped_storage().nbytes()))
    return t


def _storage(t: Tensor) -> int:
    return int(t.untyped_storage()._cdata)


def _vjp(h: Tensor, wrt: list[Tensor]) -> _Work:
    if not wrt:
        return _Work()
    with Traffic() as traffic:
        torch.autograd.grad(h, wrt, torch.empty_like(h), retain_graph=True, allow_unused=True)
    return _Work(traffic.flops, traffic.bytes)


def _meta(t: Tensor) -> Tensor:
    return torch.empty_like(t, device="meta").requires_grad_(isinstance(t, nn.Parameter) and t.requires_grad)


def _leaf(x: Any, learned: bool) -> Any:
    if not isinstance(x, Tensor):
        return x
    return x.detach().requires_grad_(learned and x.is_floating_point())
