"""Small models that the tests compile; each is seeded, takes (N, 6) and gives (N, 3) unless it says otherwise."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class MLP(nn.Module):
    """A chain of `hidden` layers fc1, fc2, … of `width` neurons and `out`; `wide` overrides some widths."""

    def __init__(
        self, hidden: int = 5, width: int = 8, phi: type[nn.Module] = nn.ReLU, wide: dict[int, int] | None = None
    ) -> None:
        super().__init__()
        widths = [6, *((wide or {}).get(i, width) for i in range(1, hidden + 1))]
        self.names = [f"fc{i}" for i in range(1, hidden + 1)]
        for name, before, after in zip(self.names, widths, widths[1:], strict=False):
            self.add_module(name, nn.Linear(before, after))
        self.out = nn.Linear(widths[-1], 3)
        self.phi = phi()

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = self.phi(self.get_submodule(name)(x))
        result: Tensor = self.out(x)
        return result


class ResidualMLP(nn.Module):
    """fc1 … fc5 of equal width, out; z of layer ℓ − `gap` is added before the activation of every layer ℓ > `gap`."""

    def __init__(self, gap: int = 2, hidden: int = 5) -> None:
        super().__init__()
        self.names, self.gap = [f"fc{i}" for i in range(1, hidden + 1)], gap
        for i, name in enumerate(self.names):
            self.add_module(name, nn.Linear(8 if i else 6, 8))
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        z: list[Tensor] = []
        for i, name in enumerate(self.names):
            h = self.get_submodule(name)(z[-1] if z else x)
            z.append(torch.tanh(h + z[i - self.gap] if i >= self.gap else h))
        result: Tensor = self.out(z[-1])
        return result


class Branching(nn.Module):
    """stem, then a (one layer) beside b1, b2 (two layers); `merge` reads their concatenation, `out` reads merge."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Linear(6, 8), nn.Linear(8, 5)
        self.b1, self.b2 = nn.Linear(8, 7), nn.Linear(7, 4)
        self.merge, self.out = nn.Linear(9, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.stem(x))
        both = torch.cat([relu(self.a(x)), relu(self.b2(relu(self.b1(x))))], 1)
        result: Tensor = self.out(relu(self.merge(both)))
        return result


class Shared(nn.Module):
    """One hidden layer `fc` used three times, then `out`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        for _ in range(3):
            x = torch.tanh(self.fc(x))
        result: Tensor = self.out(x)
        return result


class Merged(nn.Module):
    """Batch and time become one dimension in fc2: input (N, 4, 6), whose z has 4N rows; the output is (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = relu(self.fc1(x)).reshape(-1, 8)
        result: Tensor = self.out(relu(self.fc2(z)).reshape(x.shape[0], 20))
        return result


def _batchnorm() -> nn.Module:
    layers: list[tuple[str, nn.Module]] = []
    for i, before in enumerate((6, 8, 8), 1):
        layers += [(f"fc{i}", nn.Linear(before, 8)), (f"bn{i}", nn.BatchNorm1d(8)), (f"phi{i}", nn.ReLU())]
    return nn.Sequential(OrderedDict([*layers, ("out", nn.Linear(8, 3))]))


def _dropout() -> nn.Module:
    layers: list[tuple[str, nn.Module]] = []
    for i, before in enumerate((6, 8, 8), 1):
        layers += [(f"fc{i}", nn.Linear(before, 8)), (f"phi{i}", nn.Tanh()), (f"drop{i}", nn.Dropout(0.25))]
    return nn.Sequential(OrderedDict([*layers, ("out", nn.Linear(8, 3))]))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": MLP,
    "residual": ResidualMLP,
    "branching": Branching,
    "batchnorm": _batchnorm,
    "dropout": _dropout,
    "shared": Shared,
    "wide": lambda: MLP(wide={2: 300, 3: 500}),
    "merged": Merged,
}


def build(name: str, batch: int = 4, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """The model called `name` and example inputs for it, drawn from `seed`; torch's own state is not touched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MODELS[name](), torch.randn(batch, *((4, 6) if name == "merged" else (6,)))
