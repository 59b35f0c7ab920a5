"""Models that torch.fx cannot trace, or traces wrongly: each is exported instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Built = tuple[nn.Module, tuple[Tensor, ...]]
AWKWARD: dict[str, Callable[[], Built]] = {}


def awkward(build: Callable[[], Built]) -> Callable[[], Built]:
    """Enter a builder of (model, inputs) into the table."""
    AWKWARD[build.__name__] = build
    return build


class Base(nn.Module):
    """Two layers, 6 → 8 → 4."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 4)


class AssertsShape(Base):
    def forward(self, x):
        assert x.shape[1] == 6, "six features"
        assert x.ndim == 2
        return self.out(torch.tanh(self.fc(x)))


@awkward
def asserts_shape():
    return AssertsShape(), (torch.randn(5, 6),)


class Length(Base):
    def forward(self, x):
        return self.out(torch.relu(self.fc(x.reshape(len(x), -1))))


@awkward
def length():
    return Length(), (torch.randn(5, 2, 3),)


class Zeros(Base):
    def forward(self, x):
        state = torch.zeros(x.size(0), 8, dtype=x.dtype, device=x.device)
        for t in range(x.shape[1]):
            state = torch.tanh(self.fc(x[:, t]) + state)
        return self.out(state)


@awkward
def zeros_and_a_loop_over_a_shape():
    return Zeros(), (torch.randn(5, 3, 6),)


class Branch(Base):
    def forward(self, x):
        z = self.fc(x)
        z = F.elu(z, 0.7) if x.shape[1] > 3 else torch.tanh(z)
        return self.out(F.dropout(z, 0.3, self.training))


@awkward
def branch_on_a_shape():
    return Branch(), (torch.randn(5, 6),)


class View(Base):
    def forward(self, x):
        y = self.fc(x)
        flat = y.view(-1)
        flat += 1
        return self.out(torch.relu(y))


@awkward
def write_into_a_view():
    return View(), (torch.randn(5, 6),)


class Slice(Base):
    def forward(self, x):
        h = self.fc(x).clone()
        h[:, :4] = torch.relu(h[:, :4])
        h[:, 4:].mul_(2)
        return self.out(h)


@awkward
def write_into_a_slice():
    return Slice(), (torch.randn(5, 6),)


class AliasedRelu(Base):
    def forward(self, x):
        h = self.fc(x)
        F.relu_(h)
        return self.out(h)


@awkward
def in_place_result_thrown_away():
    return AliasedRelu(), (torch.randn(5, 6),)


class Counter(Base):
    """Counts its steps in a buffer, and normalises by hand with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        assert x.shape[0] > 1
        self.steps += 1
        h = self.fc(x)
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * h.mean(0))
        return self.out(torch.relu(self.norm(torch.tanh(h - self.mean))))


@awkward
def running_mean_by_hand():
    return Counter(), (torch.randn(5, 6),)


class Schedule(Base):
    """A buffer read in two places and written between them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        h = torch.tanh(self.fc(x) * self.scale)
        before = self.scale
        self.scale = self.scale * 1.5
        return self.out(h) * self.scale + before


@awkward
def buffer_written_between_reads():
    return Schedule(), (torch.randn(5, 6),)


class InputStatistics(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x):
        self.seen.copy_(0.5 * self.seen + x.mean(0))
        return self.out(torch.tanh(self.fc(x)))


@awkward
def statistics_of_the_input():
    return InputStatistics(), (torch.randn(5, 6),)


class FunctionalNorm(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def forward(self, x):
        assert x.ndim == 2
        h = F.batch_norm(self.fc(x), self.mean, self.var, training=self.training, momentum=0.2)
        return self.out(F.silu(h))


@awkward
def functional_batch_norm():
    return FunctionalNorm(), (torch.randn(5, 6),)


class TiedText(nn.Module):
    """Embedding and read-out share one weight; learned positions are cut to the length."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(4, 8), nn.Parameter(torch.randn(10, 8))
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, ids):
        t = ids.shape[1]
        assert t <= 10, "too long"
        h = self.tokens(ids) + self.places[:t]
        h = h + F.gelu(self.fc(self.norm(h)))
        return F.linear(h.mean(1), self.tokens.weight)


@awkward
def tied_embeddings():
    return TiedText(), (torch.randint(4, (5, 7)),)


@dataclass
class Both:
    features: Tensor
    logits: Tensor


class NamedBoth(NamedTuple):
    logits: Tensor
    attention: Any


class ReturnsDataclass(Base):
    def forward(self, x):
        assert x.shape[-1] == 6
        h = torch.tanh(self.fc(x))
        return Both(features=h, logits=self.out(h))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], check: bool) -> None:
        super().__init__()
        self.rnn, self.out, self.check = kind(6, 8, batch_first=True), nn.Linear(8, 4), check

    def forward(self, x):
        if self.check:
            assert x.shape[2] == 6
        y, _ = self.rnn(x)
        return self.out(y[:, -1])


@awkward
def lstm_exported():
    return Recurrent(nn.LSTM, True), (torch.randn(5, 3, 6),)


@awkward
def gru_exported():
    return Recurrent(nn.GRU, True), (torch.randn(5, 3, 6),)


class Attention(nn.Module):
    def __init__(self, check: bool) -> None:
        super().__init__()
        self.stem, self.mix = nn.Linear(6, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.out, self.check = nn.Linear(8, 4), check

    def forward(self, x):
        if self.check:
            assert x.shape[2] == 6
        h = torch.relu(self.stem(x))
        a, _ = self.mix(h, h, h, need_weights=False)
        return self.out((h + a).mean(1))


@awkward
def multi_head_attention_exported():
    return Attention(True), (torch.randn(5, 3, 6),)


class Encoder(nn.Module):
    def __init__(self, check: bool) -> None:
        super().__init__()
        self.stem, self.check = nn.Linear(6, 8), check
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 4)

    def forward(self, x):
        if self.check:
            assert x.shape[2] == 6
        return self.out(self.encoder(self.stem(x)).mean(1))


@awkward
def transformer_encoder_exported():
    return Encoder(True), (torch.randn(5, 3, 6),)


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.fc, self.out = nn.EmbeddingBag(9, 6, mode="sum"), nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, ids):
        assert ids.shape[1] == 3
        return self.out(torch.relu(self.fc(self.bag(ids))))


@awkward
def embedding_bag_exported():
    return Bags(), (torch.randint(9, (5, 3)),)


class Frozen(Base):
    """Part of the forward pass is kept out of autograd."""

    def forward(self, x):
        assert x.ndim == 2
        h = self.fc(x)
        with torch.no_grad():
            scale = h.abs().mean(1, keepdim=True) + 1
        return self.out(torch.relu(h / scale))


@awkward
def no_grad_part():
    return Frozen(), (torch.randn(5, 6),)


class FrozenForFx(Base):
    """The same values as without torch.no_grad: only gradients tell."""

    def forward(self, x):
        h = self.fc(x)
        with torch.no_grad():
            scale = h.abs().mean(1, keepdim=True) + 1
        return self.out(torch.relu(h / scale))


@awkward
def no_grad_part_that_fx_drops():
    return FrozenForFx(), (torch.randn(5, 6),)
