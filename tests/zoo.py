"""Models for the transparency matrix: every way of writing a network the tracer has to see through."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.layers import Sign

ZOO: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {}


def model(build: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]):
    """Enter a builder of (model, inputs) into the zoo."""
    ZOO[build.__name__] = build
    return build


def chain(phi: Callable[[], nn.Module], depth: int = 4) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(6 if k == 0 else 8, 8), phi()]
    return nn.Sequential(*layers, nn.Linear(8, 4))


ACTIVATIONS = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "leaky_relu": nn.LeakyReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
    "elu": nn.ELU, "selu": nn.SELU, "celu": nn.CELU, "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish,
    "softplus": nn.Softplus, "softsign": nn.Softsign, "hardtanh": nn.Hardtanh, "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish, "logsigmoid": nn.LogSigmoid, "prelu": nn.PReLU, "sign": Sign,
    "inplace_relu": lambda: nn.ReLU(inplace=True), "identity": nn.Identity,
}  # fmt: skip
for _name, _phi in ACTIVATIONS.items():
    ZOO[f"chain_{_name}"] = lambda phi=_phi: (chain(phi), (torch.randn(5, 6),))


class Residual(nn.Module):
    """z_{l−g} added before φ (the paper's residual MLP)."""

    def __init__(self, after: bool = False) -> None:
        super().__init__()
        self.stem, self.out, self.after = nn.Linear(6, 8), nn.Linear(8, 4), after
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(5))

    def forward(self, x):
        z = [torch.tanh(self.stem(x))]
        for k, layer in enumerate(self.layers):
            h = layer(z[-1])
            skip = z[-2] if k % 2 else 0
            z.append(torch.tanh(h) + skip if self.after else torch.tanh(h + skip))
        return self.out(z[-1])


@model
def residual():
    return Residual(), (torch.randn(5, 6),)


@model
def residual_after_phi():
    return Residual(after=True), (torch.randn(5, 6),)


class Shared(nn.Module):
    """One layer used three times, and one activation module used everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out, self.phi = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        z = self.phi(self.a(x))
        for _ in range(3):
            z = self.phi(self.b(z))
        return self.out(z)


@model
def shared():
    return Shared(), (torch.randn(5, 6),)


class Tied(nn.Module):
    """The same weight as a module's parameter and in a function call."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        z = torch.tanh(self.a(x))
        z = torch.tanh(F.linear(z, self.a.weight.t(), self.b.bias))
        return self.out(torch.relu(self.b(z)))


@model
def tied_transpose():
    return Tied(), (torch.randn(5, 6),)


class Branches(nn.Module):
    """Two branches, concatenated; a value read three times; a gate that multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.gate, self.join, self.out = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x):
        z = F.elu(self.stem(x))
        both = torch.cat([F.relu(self.left(z)), torch.sigmoid(self.right(z))], dim=1)
        return self.out(torch.tanh(self.join(both * torch.sigmoid(self.gate(z)))))


@model
def branches():
    return Branches(), (torch.randn(5, 6),)


@model
def batch_norm_and_dropout():
    layers: list[nn.Module] = []
    for k in range(3):
        layers += [nn.Linear(6 if k == 0 else 8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4)]
    return nn.Sequential(*layers, nn.Linear(8, 4)), (torch.randn(16, 6),)


@model
def layer_norm_before():
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 4))
    return net, (torch.randn(5, 6),)


class Functional(nn.Module):
    """Parameters used by functions, an input dropout, shape arithmetic, an optional argument."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 12) * 0.3)
        self.scale = nn.Parameter(torch.ones(8))
        self.register_buffer("offset", torch.linspace(-1, 1, 8))
        self.out = nn.Linear(8, 4)

    def forward(self, x, mask=None):
        if mask is not None:
            x = x * mask
        x = F.dropout(x, 0.2, self.training)
        x = x.reshape(x.shape[0], -1)
        h = F.linear(x, self.w) * self.scale + self.offset
        return self.out(h.relu_()).log_softmax(dim=1)


@model
def functional():
    return Functional(), (torch.randn(5, 3, 4),)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.mix = nn.Linear(6, 8), nn.Linear(3, 8), nn.Bilinear(8, 8, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, x, t):
        a, b = torch.tanh(self.a(x)), torch.tanh(self.b(t))
        return self.out(torch.relu(self.mix(a, b) + a))


@model
def two_inputs():
    return TwoInputs(), (torch.randn(5, 6), torch.randn(5, 3))


class Chunked(nn.Module):
    """A tuple of results shared out to two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.out = nn.Linear(6, 16), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        left, right = self.stem(x).chunk(2, dim=1)
        return self.out(torch.relu(self.a(left)) + torch.tanh(self.b(right)))


@model
def chunked():
    return Chunked(), (torch.randn(5, 6),)


@model
def embeddings():
    return nn.Sequential(nn.Embedding(11, 6), nn.Flatten(), nn.Linear(18, 8), nn.ReLU(), nn.Linear(8, 4)), (
        torch.randint(11, (5, 3)),
    )


class ConvNet(nn.Module):
    """Convolutions with norm, in-place φ, pooling and a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.c2, self.b2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.c3, self.b3 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.phi, self.pool, self.out = nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Linear(96, 4)

    def forward(self, x):
        z = self.pool(self.phi(self.b1(self.c1(x))))
        h = self.b3(self.c3(self.phi(self.b2(self.c2(z)))))
        h += z
        return self.out(self.phi(h).flatten(1))


@model
def conv_residual():
    return ConvNet(), (torch.randn(4, 3, 8, 8),)


@model
def frozen_layer():
    net = chain(nn.Tanh)
    net[2].weight.requires_grad_(False)
    net[4].requires_grad_(False)
    return net, (torch.randn(5, 6),)


@model
def one_layer():
    return nn.Sequential(nn.Linear(6, 4)), (torch.randn(5, 6),)
