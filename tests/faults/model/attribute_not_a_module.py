# argument: attribute_not_a_module.py:sizes
import torch
from torch import nn

sizes = [4, 8, 3]
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
example_inputs = torch.zeros(2, 4)
