"""The nine-layer network of the paper's Figure 1; its wiring is figure1.yaml beside this file.

    reclra-compile examples/figure1.py --wiring examples/figure1.yaml --graph figure1.html
"""

from collections import OrderedDict

import torch
from torch import nn

widths = (64, 128, 32, 128, 128, 32, 128, 128, 32, 10)  # layers 2, 5 and 8 are the bottlenecks


class NineLayers(nn.Sequential):
    """Layers layer1 … layer9 with tanh between them."""

    def __init__(self) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for k in range(1, 10):
            parts[f"layer{k}"] = nn.Linear(widths[k - 1], widths[k])
            if k < 9:
                parts[f"tanh{k}"] = nn.Tanh()
        super().__init__(parts)


def build_model() -> nn.Module:
    return NineLayers()


example_inputs = torch.zeros(32, 64)
