import torch
from torch import nn

model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
example_inputs = (torch.zeros(2, 4), torch.zeros(2, 4))
