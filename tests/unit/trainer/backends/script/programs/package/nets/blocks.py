import torch

from ..tools import batch


class Residual(torch.nn.Module):
    def __init__(self, layers):
        super().__init__()
        width = batch(0)[0].shape[1]
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(layers))
        self.last = torch.nn.Linear(width, 1)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x).relu()
        return self.last(x)
