"""Run as `python -m package.runs.train`: by its path alone its imports would fail."""

import torch

from .. import tools
from ..nets import Residual

if __name__ == "__main__":
    torch.manual_seed(9)
    model = Residual(2)
    optimizer = torch.optim.Adagrad(model.parameters(), 0.05)
    step = tools.load(model=model, optimizer=optimizer)
    while step < 60:
        x, y = tools.batch(step)
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()
        optimizer.step()
        step += 1
        if step % 10 == 0:
            tools.save(step, model=model, optimizer=optimizer)
