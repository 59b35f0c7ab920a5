"""Attention as one operation on the meta device, as the kernels of CPUs and GPUs have it.

On meta, torch runs `scaled_dot_product_attention` by its definition: matrices of all pairs of positions are written,
read and kept. Fused kernels never store these; they keep the operands, the result and one number a row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_WHOLE: Callable[..., Tensor] = F.scaled_dot_product_attention
_NAMES = (_WHOLE, torch.ops.aten.scaled_dot_product_attention, torch.ops.aten.scaled_dot_product_attention.default)


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """Inside, attention over meta tensors is one operation; torch's modules and functions are included."""
    F.scaled_dot_product_attention = _attention  # nn.MultiheadAttention looks it up there
    try:
        with _Fused():
            yield
    finally:
        F.scaled_dot_product_attention = _WHOLE


class _Fused(TorchFunctionMode):
    """Replaces the function where a graph calls it itself."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (_attention if func in _NAMES else func)(*args, **(kwargs or {}))


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """What `scaled_dot_product_attention` gives; by its definition where no fused kernel takes these operands."""
    operands = (query, key, value)
    fits = all(t.device.type == "meta" and t.ndim == 4 for t in operands)
    alike = len({(t.shape[:2], t.shape[-1]) for t in operands}) == 1
    if not fits or not alike or (attn_mask is not None and attn_mask.requires_grad):
        return _WHOLE(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in operands)
    fused = torch.ops.aten._scaled_dot_product_efficient_attention
    out: Tensor = fused(query, key, value, attn_mask, learns, dropout_p, is_causal, scale=scale)[0]
    return out
