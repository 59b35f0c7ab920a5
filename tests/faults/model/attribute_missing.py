# argument: attribute_missing.py:smal
import torch
from torch import nn


def small():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


example_inputs = torch.zeros(2, 4)
