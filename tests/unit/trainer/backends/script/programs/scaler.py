"""Mixed precision with a gradient scaler, which leaves out two steps whose gradients overflow, and grows in between."""

import os

import torch

OVERFLOWS = (4, 26)

torch.manual_seed(4)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=8)
parts = {"model": model, "optimizer": optimizer, "scaler": scaler}
start = 0
if os.path.exists("amp.pth"):
    state = torch.load("amp.pth")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    start = state["step"]
for iteration in range(start, 60):
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(iteration))
    with torch.autocast("cpu", torch.bfloat16):
        loss = torch.nn.functional.mse_loss(model(x).float(), x.mean(1, keepdim=True))
    if iteration in OVERFLOWS:
        loss = loss * float("inf")
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    if (iteration + 1) % 10 == 0:
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "step": iteration + 1, "loss": float(loss)}, "amp.pth")
