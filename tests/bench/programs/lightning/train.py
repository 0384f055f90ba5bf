"""An ordinary Lightning program, with a step of five milliseconds."""

import time

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(8, 1)

    def training_step(self, batch, index):
        time.sleep(0.005)
        x, y = batch
        return ((self.net(x) - y) ** 2).mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.01)


pl.seed_everything(0)
rows = torch.randn(8000, 8)
trainer = pl.Trainer(max_epochs=1000, accelerator="cpu", enable_progress_bar=False, logger=False)
trainer.fit(Net(), DataLoader(TensorDataset(rows, rows.sum(1, keepdim=True)), batch_size=16, shuffle=True))
