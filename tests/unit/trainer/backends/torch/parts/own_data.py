"""Data that a user may bring, which draws for each sample. Copied into the job's folder."""

import random

import numpy as np
import torch


class Spirals:
    """Two spirals of different sizes, moved a little whenever they are read; long ones are cut by `collate`."""

    classes = ["left", "right"]
    fingerprint = "spirals 1"
    shape = (3,)

    def __init__(self, rows=300):
        self.targets = (np.arange(rows) % 5 == 0).astype(np.int64)
        angle = np.random.uniform(0.5, 6, rows)
        side = 1 - 2 * self.targets
        self.x = np.stack([side * angle * np.cos(angle), side * angle * np.sin(angle), angle], axis=1) / 3

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        moved = self.x[index] + np.random.normal(0, 0.03, 3) + 0.03 * torch.randn(3).numpy()
        return moved * random.uniform(0.97, 1.03), self.targets[index]

    def collate(self, pairs):
        x = torch.stack([torch.as_tensor(x, dtype=torch.float32) for x, _ in pairs])
        return x + 0.01 * torch.randn(1), torch.tensor([int(y) for _, y in pairs])


class Shuffled:
    """A stream of the same points, shuffled in a buffer; its state is where it is and what it holds."""

    classes, fingerprint = Spirals.classes, "spirals 1"

    def __init__(self, rows=300, buffer=20):
        self.points, self.size, self.at, self.buffer = Spirals(rows), buffer, 0, []

    def __len__(self):
        return len(self.points)

    def __iter__(self):
        while self.at < len(self.points) or self.buffer:
            while self.at < len(self.points) and len(self.buffer) < self.size:
                self.buffer.append(self.at)
                self.at += 1
            yield self.points[self.buffer.pop(int(torch.randint(len(self.buffer), ())))]

    def state_dict(self):
        return {"at": self.at, "buffer": self.buffer}

    def load_state_dict(self, state):
        self.at, self.buffer = state["at"], state["buffer"]


class Stateless:
    """The same without a state: a resume reads it again."""

    classes, fingerprint = Spirals.classes, "spirals 1"

    def __init__(self, rows=300):
        self.points = Spirals(rows)

    def __len__(self):
        return len(self.points)

    def __iter__(self):
        return (self.points[index] for index in range(len(self.points)))


class Shards:
    """Each rank reads its own part, in another order in each epoch."""

    classes, fingerprint = Spirals.classes, "spirals 1"

    def __init__(self, split, rank, world_size, rows=300):
        self.points, self.split, self.rank, self.world_size = Spirals(rows), split, rank, world_size
        self.epoch, self.at = 0, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self._order())

    def _order(self):
        every = {"train": slice(0, 240), "validation": slice(240, 270), "test": slice(270, 300)}[self.split]
        return np.random.default_rng(self.epoch).permutation(np.arange(300)[every])[self.rank :: self.world_size]

    def __iter__(self):
        order = self._order()
        while self.at < len(order):
            self.at += 1
            yield self.points[int(order[self.at - 1])]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class BrokenRow(Spirals):
    def __getitem__(self, index):
        if index == 100:
            raise KeyError("no such spiral")
        return super().__getitem__(index)


class BrokenItem(Shuffled):
    """It breaks beyond what is read before the first step."""

    held_out = 3

    def __init__(self):
        super().__init__(1000)

    def __iter__(self):
        for number, item in enumerate(super().__iter__()):
            if number == 900:
                raise KeyError("no such spiral")
            yield item
