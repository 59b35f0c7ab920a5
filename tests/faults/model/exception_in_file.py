import torch
from torch import nn

sizes = {"hidden": 8}
model = nn.Sequential(nn.Linear(4, sizes["hiden"]), nn.ReLU(), nn.Linear(8, 3))
example_inputs = torch.zeros(2, 4)
