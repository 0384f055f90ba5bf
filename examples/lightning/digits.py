"""Digits with Lightning: a module and a datamodule, as they would be written for any Trainer."""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split


class Net(pl.LightningModule):
    """One hidden layer."""

    def __init__(self, width=64, lr=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10))

    def training_step(self, batch, index):
        """Return the mean loss of a batch."""
        images, digits = batch
        loss = cross_entropy(self.layers(images), digits)
        self.log("train_loss", loss)
        return loss

    def measure(self, batch, split):
        """Log the accuracy of a batch; Lightning averages over the split."""
        images, digits = batch
        hits = self.layers(images).argmax(1) == digits
        self.log(f"{split}_accuracy", hits.float().mean(), sync_dist=True)

    def validation_step(self, batch, index):
        """Measure."""
        self.measure(batch, "val")

    def test_step(self, batch, index):
        """Measure."""
        self.measure(batch, "test")

    def configure_optimizers(self):
        """Return AdamW and a cosine over all steps."""
        optimizer = torch.optim.AdamW(self.parameters(), self.hparams.lr)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Digits(pl.LightningDataModule):
    """scikit-learn's digits, split once."""

    def __init__(self, batch=64):
        super().__init__()
        self.batch = batch

    def setup(self, stage):
        """Read and split the rows."""
        images, digits = load_digits(return_X_y=True)
        rows = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
        self.parts = random_split(rows, [0.7, 0.15, 0.15], torch.Generator().manual_seed(0))

    def train_dataloader(self):
        """Return 70 %."""
        return DataLoader(self.parts[0], self.batch, shuffle=True)

    def val_dataloader(self):
        """Return 15 %."""
        return DataLoader(self.parts[1], 256)

    def test_dataloader(self):
        """Return 15 %."""
        return DataLoader(self.parts[2], 256)
