"""An ordinary program: a small model, a checkpoint file every hundred steps, a step of five milliseconds."""

import os
import time

import torch

torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
step = 0
os.makedirs("out", exist_ok=True)
if os.path.exists("out/last.pt"):
    state = torch.load("out/last.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step = state["step"]
while step < 100_000:
    x = torch.randn(16, 8)
    optimizer.zero_grad()
    ((model(x) - x.sum(1, keepdim=True)) ** 2).mean().backward()
    optimizer.step()
    step += 1
    time.sleep(0.005)
    if step % 100 == 0:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, "out/next")
        os.replace("out/next", "out/last.pt")
