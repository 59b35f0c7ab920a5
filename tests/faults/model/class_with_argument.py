# argument: class_with_argument.py:Net
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(4, width)

    def forward(self, x):
        return self.fc(x)


example_inputs = torch.zeros(2, 4)
