import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        h = torch.relu(self.fc(x))
        return {"scores": self.out(h), "features": h}


model = Net()
example_inputs = torch.zeros(2, 4)
