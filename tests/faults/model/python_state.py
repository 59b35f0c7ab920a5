import torch
from torch import nn

calls = 0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        global calls
        calls += 1
        return self.out(torch.relu(self.fc(x))) * calls


model = Net()
example_inputs = torch.ones(2, 4)
