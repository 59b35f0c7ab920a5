import torch
from torch import nn


def build_model(width, depth, classes=3):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, classes))


example_inputs = torch.zeros(2, 4)
