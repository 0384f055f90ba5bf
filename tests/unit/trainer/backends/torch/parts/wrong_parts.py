"""Parts of a user's that each make one mistake. Copied into the job's folder."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name


class Flat(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.layer = nn.Linear(64, outputs)

    def forward(self, x):
        return self.shape_of(self.layer(x.flatten(1)))

    def shape_of(self, output):
        return output[:, :3]


class Pair(Flat):
    def shape_of(self, output):
        return output, output


class Detached(Flat):
    def shape_of(self, output):
        return output.detach()


class Misfit(Flat):
    def forward(self, x):
        return self.layer(x.flatten(1)[:, :10])


class InPlace(Flat):
    def shape_of(self, output):
        hidden = torch.exp(output)
        hidden.mul_(2)
        return hidden


class Unused(Flat):
    def __init__(self, outputs):
        super().__init__(outputs)
        self.other = nn.Linear(3, 3)

    def shape_of(self, output):
        return output


class Extra(Flat):
    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


class Empty(nn.Module):
    def forward(self, x):
        return x


def no_module(outputs):
    return lambda x: x


def per_row(output, target):
    return F.cross_entropy(output, target, reduction="none")


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, output, target):
        return F.cross_entropy(output * self.temperature, target)


def undirected(output, target):
    return 0.0


class NoMetric:
    higher_is_better = True


class Closure(torch.optim.SGD):
    def step(self, closure):
        closure()


class Bad:
    classes = ["a", "b"]
    kind = ""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 0 if self.kind == "empty" else 90

    def __getitem__(self, index):
        x = torch.randn(4)
        if self.kind == "raises" and index == 17:
            return [][index]
        return {
            "shape": (torch.randn(5) if index == 17 else x, 0), "class": (x, 7), "fraction": (x, 0.5),
            "single": x, "word": (x, "cat"), "words": (["a", "b"], 0), "raises": (x, 0),
        }[self.kind]  # fmt: skip


class Stream:
    def __iter__(self):
        return iter([])
