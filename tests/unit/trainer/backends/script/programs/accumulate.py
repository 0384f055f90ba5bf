"""Gradients of four batches for a step, clipped, with a warm-up; a folder for each checkpoint, the newest counts."""

import pathlib

import torch

MICRO, BATCH, STEPS = 4, 6, 60

torch.manual_seed(3)
rows = torch.randn(120, 8, generator=torch.Generator().manual_seed(30))
target = rows.sin().sum(1, keepdim=True)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=STEPS + 1)
parts = {"model": model, "optimizer": optimizer, "schedule": schedule}


def batches(first):
    """Yield micro-batches from one on; an epoch's order depends on its number alone."""
    per_epoch = len(rows) // BATCH
    for number in range(first, STEPS * MICRO):
        epoch, index = divmod(number, per_epoch)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(epoch))
        yield number, order[index * BATCH : (index + 1) * BATCH]


folder = pathlib.Path("runs/accumulate")
saved = max(folder.glob("*/state.pt"), key=lambda file: int(file.parent.name), default=None)
first = 0
if saved is not None:
    state = torch.load(saved)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    first = state["step"]
for number, chosen in batches(first * MICRO):
    loss = ((model(rows[chosen]) - target[chosen]) ** 2).mean() / MICRO
    loss.backward()
    if (number + 1) % MICRO:
        continue
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()
    step = (number + 1) // MICRO
    if step % 10 == 0:
        place = folder / str(step)
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text("{}")
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, place / "state.pt")
