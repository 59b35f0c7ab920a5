"""A table with categorical and numeric columns: an embedding per category, then a multilayer perceptron.

    reclra-compile train examples/tabular.py --wiring depth1 --compare backprop

The table is scikit-learn's breast cancer data; its ten mean measures are binned to categories. Two inputs:
categories (N, 10) and numbers (N, 20).
"""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

BINS = 8


class Tabular(nn.Module):
    """Embeddings of the categories beside the numbers, two hidden layers with batch normalisation."""

    def __init__(self, categories: int, numbers: int, width: int = 64, classes: int = 2) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(BINS, 4) for _ in range(categories))
        self.fc1, self.bn1 = nn.Linear(4 * categories + numbers, width), nn.BatchNorm1d(width)
        self.fc2, self.bn2 = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.out = nn.Linear(width, classes)
        nn.init.normal_(self.out.weight, std=0.001)

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        found = [table(categories[:, k]) for k, table in enumerate(self.embed)]
        x = torch.relu(self.bn1(self.fc1(torch.cat([*found, numbers], dim=1))))
        return self.out(torch.relu(self.bn2(self.fc2(x))))


def build_model() -> nn.Module:
    return Tabular(categories=10, numbers=20)


def example_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(32, 10, dtype=torch.long), torch.zeros(32, 20)


def data() -> dict[str, tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """Both inputs and the class of each sample; the numbers are standardised by the training part."""
    table = load_breast_cancer()
    x, y = torch.tensor(table.data, dtype=torch.float32), torch.tensor(table.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, test = order[:455], order[455:]
    means, numbers = x[:, :10].contiguous(), x[:, 10:]
    edges = torch.quantile(means[train], torch.linspace(0, 1, BINS + 1)[1:-1], dim=0)
    columns = zip(means.t(), edges.t(), strict=True)
    binned = [torch.bucketize(column.contiguous(), edge.contiguous()) for column, edge in columns]
    categories = torch.stack(binned, dim=1)
    numbers = (numbers - numbers[train].mean(0)) / numbers[train].std(0)
    return {part: ((categories[i], numbers[i]), y[i]) for part, i in (("train", train), ("test", test))}
