"""A training of one's own: what is trained is here, the loop, its checkpoints and its workers are Trainmaster's."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset, random_split
from trainmaster import Recipe


def loss(model, batch):
    """Return the mean over a batch."""
    images, digits = batch
    return cross_entropy(model(images), digits, label_smoothing=0.05)


def metrics(model, batch):
    """Return sums and counts."""
    images, digits = batch
    return {"accuracy": ((model(images).argmax(1) == digits).sum(), len(digits))}


def digits(width=64):
    """Return everything that is trained."""
    images, labels = load_digits(return_X_y=True)
    rows = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    train, validation, test = random_split(rows, [0.7, 0.15, 0.15], torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10))
    return Recipe(
        model, loss, train, validation, test, metrics=metrics, higher_is_better={"accuracy": True},
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.005),
    )  # fmt: skip
