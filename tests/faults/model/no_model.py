import torch

WIDTH = 8
example_inputs = torch.zeros(2, 4)
