"""Imported by what ranks are forked from: a process's first optimizer imports some 900 modules of torch's compiler."""

import torch

torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
