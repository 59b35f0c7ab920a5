import torch
from neighbour import Nett

model = Nett()
example_inputs = torch.zeros(2, 4)
