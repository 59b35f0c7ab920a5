"""FLOPs, and bytes read and written, of the operations that run inside a context; on the meta device nothing is run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_GATHERS = frozenset({"aten::embedding", "aten::index", "aten::index_select", "aten::gather"})
"""What reads as much of its first argument as it writes, and not the whole table."""
_EMPTY = ("aten::empty", "aten::new_empty")  #: memory is taken, but neither read nor written


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums `flops` (as torch counts them) and `bytes` (of tensor arguments and results) of each operation.

    Gradients of convolutions in groups take what the convolution does; torch counts as many times that as groups.

    Views and allocations move nothing. An expanded tensor counts as what is stored of it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.bytes = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation and add what it costs."""
        kwargs = kwargs or {}
        sort = _SORTS.get(func)
        if sort is None:
            sort = _SORTS[func] = _sort(func)
        if sort == "composite":  # under inference_mode these arrive whole; their parts are counted
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        if sort == "view":
            return out
        self.bytes += 2 * _size(out) + _size(args[1:]) if sort == "gather" else _size(args) + _size(out)
        if kwargs:
            self.bytes += _size(tuple(kwargs.values()))
        count = flop_registry.get(func._overloadpacket)
        if func is _CONVOLUTION_BACKWARD:
            self.flops += _backward_of_convolution(*args)
        elif count is not None:
            self.flops += int(count(*args, **kwargs, out_val=out))
        return out


_SORTS: dict[Any, str] = {}
_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default


def _backward_of_convolution(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, mask: Any,
) -> int:  # fmt: skip
    """FLOPs of the gradients that `mask` asks for (of the input, of the weight): each those of the forward pass."""
    places = math.prod((x if transposed else grad).shape[2:])
    return (bool(mask[0]) + bool(mask[1])) * 2 * len(x) * places * weight.numel()


def _sort(func: OpOverload) -> str:
    """Whether an operation is made of others, a view (or only takes memory), a gather, or something that moves data."""
    name = func._schema.name
    full = f"{name}.{func._overloadname}" if func._overloadname != "default" else name
    if torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeImplicitAutograd"):
        return "composite"
    aliases = [r.alias_info for r in func._schema.returns]
    if name.startswith(_EMPTY) or (aliases and all(a is not None and not a.is_write for a in aliases)):
        return "view"
    return "gather" if name in _GATHERS else "moves"


def _size(value: Any) -> int:
    """Bytes of the tensors in a value, lists and tuples included."""
    if isinstance(value, Tensor):
        return tensor_bytes(value)
    if isinstance(value, tuple | list):
        return sum([_size(v) for v in value if isinstance(v, Tensor | tuple | list)])
    return 0


def tensor_bytes(t: Tensor) -> int:
    """Bytes of a tensor's elements; of an expanded one, what is stored."""
    whole: int = t.numel() * t.element_size()
    return whole if not whole or 0 not in t.stride() else min(whole, t.untyped_storage().nbytes())
