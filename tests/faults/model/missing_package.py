import torch
import torchvison_models.resnet as zoo

model = zoo.resnet18()
example_inputs = torch.zeros(2, 3, 32, 32)
