"""The older name of the package, and names that were imported from it before."""

import pytorch_lightning as pl
import torch
from nets import wait
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader, TensorDataset

ROWS = torch.randn(96, 8, generator=torch.Generator().manual_seed(4))


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))

    def training_step(self, batch, index):
        wait(self.trainer.global_step)
        return ((self.net(batch[0]) - batch[0].sum(1, keepdim=True)) ** 2).mean()

    def train_dataloader(self):
        return DataLoader(TensorDataset(ROWS), 8, shuffle=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01, momentum=0.9)


if __name__ == "__main__":
    pl.seed_everything(1)
    net = Net()
    Trainer(max_epochs=5, enable_progress_bar=False, enable_model_summary=False).fit(net)
    torch.save(net.state_dict(), "final.pt")
