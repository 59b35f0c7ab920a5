"""A recurrent network: an LSTM reads the rows of 8×8 digits one after the other.

    reclra-compile train examples/lstm.py --wiring depth1 --compare backprop --epochs 30

torch's LSTM is one operation, and so one region: inside, its steps learn by exact backpropagation through
time from the region's error neurons.
"""

import torch
from torch import nn


class Reader(nn.Module):
    """Two LSTMs of `width` units, a hidden layer on the last state, and a linear output layer."""

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.lstm1 = nn.LSTM(8, width, batch_first=True)
        self.lstm2 = nn.LSTM(width, width, batch_first=True)
        self.fc, self.out = nn.Linear(width, width), nn.Linear(width, classes)
        nn.init.normal_(self.out.weight, std=0.001)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm1(rows)
        states, _ = self.lstm2(states)
        return self.out(torch.relu(self.fc(states[:, -1])))


def build_model() -> nn.Module:
    return Reader()


def example_inputs() -> torch.Tensor:
    return torch.zeros(32, 8, 8)
