"""A sampler of its own, which draws rows with a large loss more often and so has a state that follows the training."""

import os

import torch
from torch.utils.data import DataLoader, Sampler, TensorDataset


class Hardest(Sampler):
    """Batches drawn by what each row cost when it was last seen."""

    def __init__(self, rows, batch):
        self.cost, self.batch = torch.ones(rows), batch
        self.draws = torch.Generator().manual_seed(60)

    def __iter__(self):
        while True:
            yield torch.multinomial(self.cost, self.batch, generator=self.draws).tolist()

    def state_dict(self):
        return {"cost": self.cost, "draws": self.draws.get_state()}

    def load_state_dict(self, state):
        self.cost = state["cost"]
        self.draws.set_state(state["draws"])


torch.manual_seed(6)
rows = torch.randn(64, 4)
sampler = Hardest(64, 8)
data = TensorDataset(rows, rows.prod(1, keepdim=True), torch.arange(64))
loader = DataLoader(data, batch_sampler=sampler)
model = torch.nn.Sequential(torch.nn.Linear(4, 12), torch.nn.ReLU(), torch.nn.Linear(12, 1))
optimizer = torch.optim.RMSprop(model.parameters(), 0.005)
parts = {"model": model, "optimizer": optimizer, "sampler": sampler}
step = 0
if os.path.exists("saved/mining.ckpt"):
    state = torch.load("saved/mining.ckpt")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    step = state["step"]
for x, y, index in loader:
    if step == 60:
        break
    each = ((model(x) - y) ** 2).squeeze(1)
    optimizer.zero_grad()
    each.mean().backward()
    optimizer.step()
    sampler.cost[index] = each.detach() + 0.01
    step += 1
    if step % 10 == 0:
        os.makedirs("saved", exist_ok=True)
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, "saved/mining.ckpt")
