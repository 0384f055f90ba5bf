"""A loader of labelled and a shorter one of unlabelled rows, each with an order of its own and begun again."""

import os

import torch
from torch.utils.data import DataLoader, TensorDataset


class Endless:
    """Batches of a loader, epoch after epoch; knows where it is, within an epoch too."""

    def __init__(self, data, batch, seed):
        self.draws = torch.Generator().manual_seed(seed)
        self.loader = DataLoader(data, batch, shuffle=True, generator=self.draws, drop_last=True)
        self.began, self.taken = self.draws.get_state(), 0

    def __iter__(self):
        while True:
            self.draws.set_state(self.began)
            skipped = self.taken
            for index, batch in enumerate(self.loader):
                if index >= skipped:
                    self.taken = index + 1
                    yield batch
            self.began, self.taken = self.draws.get_state(), 0

    def state_dict(self):
        return {"began": self.began, "taken": self.taken}

    def load_state_dict(self, state):
        self.began, self.taken = state["began"], state["taken"]


torch.manual_seed(5)
rows = torch.randn(96, 4)
labelled = Endless(TensorDataset(rows, rows.sum(1, keepdim=True)), 8, 50)
unlabelled = Endless(TensorDataset(torch.randn(56, 4)), 16, 51)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
parts = {"model": model, "optimizer": optimizer, "labelled": labelled, "unlabelled": unlabelled}
step = 0
if os.path.exists("model.pth"):
    state = torch.load("model.pth")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    step = state["step"]
for (x, y), (other,) in zip(labelled, unlabelled, strict=False):
    if step == 60:
        break
    loss = ((model(x) - y) ** 2).mean() + 0.1 * (model(other) - model(other.flip(0)).detach()).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if step % 10 == 0:
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, "model.pth")
