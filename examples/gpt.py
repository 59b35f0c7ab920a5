"""A character-level language model: GPT with tied embeddings, on text that comes with Python.

    reclra-compile train examples/gpt.py --wiring groups --granularity groups=2 --compare backprop

The text is the documentation of some modules of the standard library: nothing is downloaded. The error is
the share of characters guessed wrong.
"""

import ast
import importlib.util

import torch
import torch.nn.functional as F
from torch import nn

LENGTH = 64  #: characters of context
TEXT = 250_000  #: characters of text
CHARACTERS = "\n !\"#%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_`abcdefghijklmnopqrstuvwxyz{|}"
MODULES = (
    "argparse ast bisect calendar collections configparser contextlib csv dataclasses datetime decimal difflib "
    "doctest enum fractions functools heapq inspect ipaddress json.decoder os pathlib random shutil socket "
    "statistics string subprocess textwrap threading typing unittest.case unittest.mock"
)


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.c_attn(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    """Two layers, the inner one four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    """Attention and a two-layer MLP, each behind a norm and added to what it reads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), MLP(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Token and position embeddings, `depth` blocks, and an output layer that shares the token embedding."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for part in (self.wte, self.wpe):
            nn.init.normal_(part.weight, std=0.02)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def build_model() -> nn.Module:
    return GPT(len(CHARACTERS) + 1, LENGTH, width=96, depth=3, heads=4)


def example_inputs() -> torch.Tensor:
    return torch.zeros(16, LENGTH, dtype=torch.long)


def loss_fn(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy of every next character."""
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def text() -> str:
    """The docstrings of the modules, one after the other, up to TEXT characters."""
    found = []
    for name in MODULES.split():
        spec = importlib.util.find_spec(name)
        source = spec.loader.get_source(name) if spec and spec.loader else None
        for node in ast.walk(ast.parse(source or "")):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                found.append(ast.get_docstring(node) or "")
    return "\n\n".join(filter(None, found))[:TEXT]


def data() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Stretches of LENGTH characters, and the same moved by one; the last tenth of the text is the test part."""
    code = {c: k for k, c in enumerate(CHARACTERS, 1)}  # 0 is any other character
    numbers = torch.tensor([code.get(c, 0) for c in text()])
    count = (len(numbers) - 1) // LENGTH
    x = numbers[: count * LENGTH].view(count, LENGTH)
    y = numbers[1 : count * LENGTH + 1].view(count, LENGTH)
    cut = count - count // 10
    return {"train": (x[:cut], y[:cut]), "test": (x[cut:], y[cut:])}
