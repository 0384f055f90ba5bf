"""Every rank keeps a file of its own, and rank 0 the weights: all of them must come back together."""

import os
import time

import torch
import torch.distributed as dist

rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
dist.init_process_group("gloo")
torch.manual_seed(7)
model = torch.nn.Linear(4, 1)
net = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), 0.01)
torch.manual_seed(100 + rank)
os.makedirs("ck", exist_ok=True)
step = 0
if os.path.exists("ck/model.pt"):
    state = torch.load("ck/model.pt")
    step = state.pop("step")
    model.load_state_dict(state)
    torch.set_rng_state(torch.load(f"ck/rng-{rank}.pt")[str(step)])
    assert os.path.exists("ck/rng-1.pt"), "the other rank's file"
kept = {}
while step < 60:
    x = torch.randn(8, 4)
    optimizer.zero_grad()
    ((net(x) - x.sum(1, keepdim=True)) ** 2).mean().backward()
    optimizer.step()
    step += 1
    time.sleep(0.02)
    if step % 10 == 0:
        kept = {**kept, str(step): torch.get_rng_state()}
        torch.save(kept, f"ck/rng-{rank}.pt.tmp")
        os.replace(f"ck/rng-{rank}.pt.tmp", f"ck/rng-{rank}.pt")
        dist.barrier()
        if rank == 0:
            torch.save({**model.state_dict(), "step": step}, "ck/model.pt.tmp")
            os.replace("ck/model.pt.tmp", "ck/model.pt")
