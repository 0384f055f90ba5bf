"""Digits with plain PyTorch: runs by itself, under torchrun, and as a TrainingJob, unchanged."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.nn.parallel import DistributedDataParallel

EPOCHS, BATCH, FILE = 30, 64, Path("checkpoints/last.pt")
rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
if world > 1:
    dist.init_process_group("gloo")
torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
x, y = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
train_x, train_y, test_x, test_y = x[:1400], y[:1400], x[1400:], y[1400:]
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
net = DistributedDataParallel(model) if world > 1 else model
optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
first = 0
if FILE.exists():
    state = torch.load(FILE)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    first = state["epoch"]
for epoch in range(first, EPOCHS):
    order = torch.randperm(len(train_x), generator=torch.Generator().manual_seed(epoch))
    for rows in order.split(BATCH * world):
        mine = rows[rank::world]
        loss = torch.nn.functional.cross_entropy(net(train_x[mine]), train_y[mine])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if rank == 0:
        FILE.parent.mkdir(exist_ok=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        torch.save(state, FILE.with_suffix(".tmp"))
        FILE.with_suffix(".tmp").replace(FILE)
if rank == 0:
    print(f"accuracy {(model(test_x).argmax(1) == test_y).float().mean():.3f}")
