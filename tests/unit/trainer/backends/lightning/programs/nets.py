"""Modules and data of the programs: small, and with everything that draws random numbers."""

import os
import time

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

BEFORE = 0  # steps of earlier fits
ROWS = torch.randn(96, 8, generator=torch.Generator().manual_seed(4))
TARGETS = ROWS[:, :1] * 2 - ROWS[:, 1:2]


def wait(step):
    """Stay in a step until the process is killed, or a file says to go on."""
    while step >= int(os.environ.get("HOLD", "1000000")) and not os.path.exists(os.environ.get("RELEASE", "-")):
        time.sleep(0.05)


class Noisy(TensorDataset):
    """Draws in every sample."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.01 * torch.randn(8), y


class Draws(TensorDataset):
    """Draws from a generator of its own, whose state no checkpoint has."""

    def __init__(self, *tensors):
        super().__init__(*tensors)
        self.dice = np.random.default_rng(5)

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x * float(self.dice.uniform(0.9, 1.1)), y


class Stream(IterableDataset):
    def __iter__(self):
        return zip(ROWS, TARGETS, strict=True)


class Stateful:
    """A loader that keeps its own position."""

    def __init__(self):
        self.passes = self.given = 0

    def __len__(self):
        return 12

    def __iter__(self):
        if self.given == len(self):
            self.passes, self.given = self.passes + 1, 0
        order = torch.randperm(96, generator=torch.Generator().manual_seed(self.passes))
        for rows in order.split(8)[self.given :]:
            self.given += 1
            yield ROWS[rows], TARGETS[rows]

    def state_dict(self):
        return {"passes": self.passes, "given": self.given}

    def load_state_dict(self, state):
        self.passes, self.given = state["passes"], state["given"]


class Net(pl.LightningModule):
    def __init__(self, schedule="", lr=0.01):
        super().__init__()
        self.schedule, self.lr = schedule, lr
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1))
        self.register_buffer("logged", torch.zeros(()))

    def on_train_start(self):
        torch.manual_seed(3 + self.global_rank)

    def on_train_epoch_end(self):
        """Let the weights file tell whether an epoch's average is that of all its batches."""
        self.logged = 0.5 * self.logged + self.trainer.callback_metrics["train_loss"].detach()

    def training_step(self, batch, index):
        wait(BEFORE + self.trainer.global_step)
        if isinstance(batch, (dict, list)) and not isinstance(batch[0] if isinstance(batch, list) else 0, torch.Tensor):
            batches = batch.values() if isinstance(batch, dict) else batch
            loss = sum(self.loss(each) for each in batches)
        else:
            loss = self.loss(batch)
        self.log("train_loss", loss, on_epoch=True, on_step=False, sync_dist=True)
        return loss

    def loss(self, batch):
        x, y = batch
        return ((self.net(x) - y) ** 2).mean()

    def validation_step(self, batch, index):
        self.log("val_loss", self.loss(batch), sync_dist=True)

    def test_step(self, batch, index):
        self.log("test_loss", self.loss(batch), sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), self.lr)
        if self.schedule == "steps":
            total = self.trainer.estimated_stepping_batches
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=int(total))
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]
        if self.schedule == "epochs":
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]
        if self.schedule == "plateau":
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.3)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "train_loss"}}
        return optimizer


def loader(batch=8, workers=0, shuffle=True, data=Noisy, **more):
    dataset = Stream() if data is Stream else data(ROWS, TARGETS)
    return DataLoader(dataset, batch, shuffle=shuffle and data is not Stream, num_workers=workers, **more)


class Data(pl.LightningDataModule):
    def __init__(self, batch=8):
        super().__init__()
        self.batch = batch

    def train_dataloader(self):
        return loader(self.batch)

    def val_dataloader(self):
        return loader(24, shuffle=False, data=TensorDataset)

    def test_dataloader(self):
        return loader(24, shuffle=False, data=TensorDataset)
