"""Classes that a section of a job can't use, or can't for long."""

import lightning.pytorch as pl
import torch
from nets import Data, Net


class NoModule:
    pass


def make_net():
    return Net()


class NoData(pl.LightningModule):
    def training_step(self, batch, index):
        return torch.zeros((), requires_grad=True)

    def configure_optimizers(self):
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)


class NoGradient(Net):
    def training_step(self, batch, index):
        return super().training_step(batch, index).detach()


__all__ = ["Data", "Net"]
