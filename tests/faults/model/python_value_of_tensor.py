import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        h = self.fc(x)
        scale = float(h.abs().max())
        return self.out(h / scale)


model = Net()
example_inputs = torch.zeros(2, 4)
