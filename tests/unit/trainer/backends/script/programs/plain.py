"""A program as people write it: argparse, DDP if there are ranks, its own checkpoints."""

import argparse
import os
import time

import torch
import torch.distributed as dist

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--out", default="out")
parser.add_argument("--every", type=int, default=10)
parser.add_argument("--sleep", type=float, default=0.01)
parser.add_argument("--ignore", action="store_true", help="don't read the checkpoint")
parser.add_argument("--link", action="store_true", help="a file per checkpoint, and a link to the newest")
options = parser.parse_args()

world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
if world > 1:
    dist.init_process_group("gloo")
torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
net = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
os.makedirs(options.out, exist_ok=True)
path = os.path.join(options.out, "last.pt")
start = 0
if os.path.exists(path) and not options.ignore:
    state = torch.load(path)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    start = state["step"]
for step in range(start, options.steps):
    draws = torch.Generator().manual_seed(step * world + rank)
    x = torch.randn(16, 8, generator=draws)
    loss = ((net(x) - x.sum(1, keepdim=True)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(options.sleep)
    if rank == 0 and (step + 1) % options.every == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
        file = os.path.join(options.out, f"step-{step + 1}.pt") if options.link else path
        torch.save(state, file + ".tmp")
        os.replace(file + ".tmp", file)
        if options.link:
            if os.path.lexists(path):
                os.unlink(path)
            os.symlink(os.path.basename(file), path)
