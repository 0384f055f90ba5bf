"""What a user may bring: model, data, loss, metric, optimizer and schedule. Copied into the job's folder."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name
from trainmaster_trainer.tasks.metrics import Metric


class Net(nn.Module):
    """Two layers that share a weight, noise of its own, a buffer that counts."""

    def __init__(self, input_shape, outputs, width=16, noise=0.1):
        super().__init__()
        self.first = nn.Linear(math.prod(input_shape), width)
        self.second, self.third = nn.Linear(width, width), nn.Linear(width, width)
        self.third.weight = self.second.weight
        self.last, self.noise = nn.Linear(width, outputs), noise
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.seen += len(x)
            x = x + self.noise * float(np.random.random())
        x = F.relu(self.first(x.flatten(1)))
        return self.last(F.relu(self.third(F.relu(self.second(x)))))


class Rings:
    """Points in two rings, as a map-style dataset."""

    classes = ["inner", "outer"]

    def __init__(self, rows=300):
        angle = np.random.uniform(0, 6.28, rows)
        self.y = np.arange(rows) % 2
        radius = 1 + self.y + np.random.normal(0, 0.1, rows)
        self.x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class Numbers(Rings):
    """The same points with a number to predict."""

    def __getitem__(self, index):
        return torch.tensor(self.x[index]), 100 + 10 * float(self.x[index][0])


class Blocks:
    """Rows as ours are: a whole batch at once, of any shape."""

    shape, labels = (2, 3), ["even", "odd"]

    def __len__(self):
        return 200

    def batch(self, indices):
        index = torch.as_tensor(indices)
        y = index % 2
        return (y[:, None, None] + torch.arange(6.0).view(1, 2, 3) * 0.01).float(), y


class Tokens:
    """Whole numbers, which an embedding wants as they are."""

    classes = ["a", "b", "c"]

    def __len__(self):
        return 300

    def __getitem__(self, index):
        return np.array([index % 3, 3, 4]), index % 3


class Lengths(Tokens):
    """The same with different lengths, padded by batch."""

    vocabulary = 5

    def __getitem__(self, index):
        return [index % 3, 3, 4, 3][: 1 + index % 4], index % 3

    def collate(self, pairs):
        lengths = torch.tensor([len(tokens) for tokens, _ in pairs])
        padded = nn.utils.rnn.pad_sequence([torch.tensor(tokens) for tokens, _ in pairs], batch_first=True)
        return {"tokens": padded, "lengths": lengths}, torch.tensor([target for _, target in pairs])


class Masked(nn.Module):
    """Mean of the embeddings of what isn't padding."""

    def __init__(self, outputs, vocabulary):
        super().__init__()
        self.table, self.last = nn.Embedding(vocabulary, 8), nn.Linear(8, outputs)

    def forward(self, *, tokens, lengths):
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return self.last((self.table(tokens) * mask[:, :, None]).sum(dim=1) / lengths[:, None])


class Bag(nn.Module):
    def __init__(self, outputs, vocabulary=5):
        super().__init__()
        self.table, self.last = nn.Embedding(vocabulary, 8), nn.Linear(8, outputs)

    def forward(self, x):
        return self.last(self.table(x).mean(dim=1))


def focal(output, target, gamma=2.0):
    p = torch.softmax(output, dim=1).gather(1, target[:, None]).squeeze(1)
    return (-((1 - p) ** gamma) * p.clamp(min=1e-9).log()).mean()


class Weighted(nn.Module):
    """A loss with a buffer that changes from step to step."""

    def __init__(self, momentum=0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("scale", torch.ones(()))

    def forward(self, output, target):
        loss = F.cross_entropy(output, target)
        if output.requires_grad:
            self.scale.mul_(self.momentum).add_((1 - self.momentum) * loss.detach())
        return loss / self.scale.clone()


class Kappa(Metric):
    """Cohen's kappa."""

    name, higher_is_better = "kappa", True

    def __init__(self, outputs):
        super().__init__()
        self.add_state("table", torch.zeros(outputs, outputs, dtype=torch.float64))
        self.outputs = outputs

    def update(self, output, target):
        cells = target * self.outputs + output.argmax(dim=1)
        table = torch.bincount(cells, minlength=self.outputs**2).double()
        self.add("table", table.view(self.outputs, self.outputs))

    def compute(self):
        table = self["table"] / self["table"].sum()
        expected = float((table.sum(0) * table.sum(1)).sum())
        return (float(table.diagonal().sum()) - expected) / (1 - expected)


def top2(output, target, k=2):
    return (output.topk(k, dim=1).indices == target[:, None]).any(dim=1).double().mean()


top2.higher_is_better = True


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "calls": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["calls"] += 1
            b1, b2 = group["betas"]
            for p in group["params"]:
                moment = self.state[p].setdefault("moment", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * (1 + 1 / group["calls"]) * torch.sign(b1 * moment + (1 - b1) * p.grad))
                moment.mul_(b2).add_(p.grad, alpha=1 - b2)


class Sawtooth:
    """Remembers how often the metric got no better."""

    def __init__(self, total_steps, teeth=4):
        self.length, self.worse, self.best = max(1, total_steps // teeth), 0, None

    def __call__(self, step):
        return (1 - (step % self.length) / self.length) * 0.5**self.worse

    def validated(self, metrics):
        if self.best is not None and metrics["val/loss"] >= self.best:
            self.worse += 1
        self.best = min(metrics["val/loss"], self.best or 1e9)

    def state_dict(self):
        return {"worse": self.worse, "best": self.best}

    def load_state_dict(self, state):
        self.worse, self.best = state["worse"], state["best"]


def halving(step, every=50):
    return 0.5 ** (step // every)
