"""A package with data files, which it reads through importlib.resources; its checkpoint is a safetensors file."""

import csv
import sys
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .nets import build


def rows():
    """Return the numbers and the target of each line."""
    with resources.files(__package__).joinpath("data/rows.csv").open(newline="") as file:
        lines = [[float(cell) for cell in line] for line in list(csv.reader(file))[1:]]
    return torch.tensor(lines).split([4, 1], dim=1)


def main(steps):
    torch.manual_seed(6)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    x, y = rows()
    Path("weights").mkdir(exist_ok=True)
    file = Path("weights/model.safetensors")
    step = 0
    if file.exists():
        found = load_file(file)
        step = int(found.pop("step"))
        model.load_state_dict(found)
    while step < steps:
        chosen = torch.randint(len(x), [8], generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        ((model(x[chosen]) - y[chosen]) ** 2).mean().backward()
        optimizer.step()
        step += 1
        if step % 10 == 0:
            save_file({**model.state_dict(), "step": torch.tensor(step)}, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
