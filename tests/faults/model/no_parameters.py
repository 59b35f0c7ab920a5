import torch
from torch import nn

model = nn.Sequential(nn.Flatten(), nn.ReLU())
example_inputs = torch.zeros(2, 4)
