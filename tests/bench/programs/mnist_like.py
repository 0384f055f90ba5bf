"""An ordinary training program that says how long its steps took: --steps N; the first tenth isn't counted."""

import json
import os
import sys
import time

import torch
from torch import nn

steps = int(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
criterion = nn.CrossEntropyLoss()
x, y = torch.randn(4096, 784), torch.randint(10, (4096,))
os.makedirs("out", exist_ok=True)
began, cpu = 0.0, 0.0
for step in range(steps):
    if step == steps // 10:
        began, cpu = time.perf_counter(), time.process_time()
    rows = torch.randint(4096, (64,))
    optimizer.zero_grad()
    loss = criterion(model(x[rows]), y[rows])
    loss.backward()
    optimizer.step()
    if (step + 1) % (steps // 4) == 0:
        torch.save(model.state_dict(), "out/last.pt")
counted = steps - steps // 10
found = {
    "ms": 1000 * (time.perf_counter() - began) / counted,
    "cpu_ms": 1000 * (time.process_time() - cpu) / counted,
}
with open(sys.argv[2], "w") as file:
    json.dump(found, file)
