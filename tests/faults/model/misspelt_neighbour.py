import torch
from neigbour import Net

model = Net()
example_inputs = torch.zeros(2, 4)
