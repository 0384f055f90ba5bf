"""A moving average of the weights and of the buffers of batch norm; dropout draws from the generator of torch."""

import os

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

FILE = "checkpoints/ema.pt"

torch.manual_seed(2)
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
parts = {"model": model, "average": average, "optimizer": optimizer}
step = 0
if os.path.exists(FILE):
    state = torch.load(FILE)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["draws"])
    step = state["step"]
while step < 60:
    x = torch.randn(16, 8)
    loss = nn.functional.mse_loss(model(x), x.mean(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    average.update_parameters(model)
    step += 1
    if step % 10 == 0:
        os.makedirs("checkpoints", exist_ok=True)
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "draws": torch.get_rng_state(), "step": step}, FILE)
