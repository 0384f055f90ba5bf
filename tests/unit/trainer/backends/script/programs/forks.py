"""Forks a pool of processes to prepare its rows, and two workers of a loader that draw while they read."""

import multiprocessing
import os

import torch
from torch.utils.data import DataLoader, Dataset


def prepared(number):
    """Return one row's numbers."""
    return [((number * 7 + place * 3) % 11) / 11 for place in range(4)]


class Noisy(Dataset):
    """Rows with noise that is drawn in the worker."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return row + 0.1 * torch.randn(4), row.sum()[None]


if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        rows = torch.tensor(pool.map(prepared, range(80)))
    torch.manual_seed(7)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    done = 0
    if os.path.exists("forks.pt"):
        state = torch.load("forks.pt")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    step = 0
    for epoch in range(6):
        draws = torch.Generator().manual_seed(epoch)
        loader = DataLoader(
            Noisy(rows), 8, shuffle=True, num_workers=2, generator=draws, multiprocessing_context="fork"
        )
        if done >= step + len(loader):
            step += len(loader)
            continue
        for x, y in loader:
            step += 1
            if step <= done:
                continue
            optimizer.zero_grad()
            ((model(x) - y) ** 2).mean().backward()
            optimizer.step()
            if step % 10 == 5:  # within an epoch
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                torch.save(state, "forks.pt")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, "forks.pt")
