import torch
from .neighbour import Net

model = Net()
example_inputs = torch.zeros(2, 4)
