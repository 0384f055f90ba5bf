"""The programs: `python shapes.py SHAPE ...`. None of them knows that it may be killed."""

import sys

import lightning.pytorch as pl
import nets
import torch
from nets import ROWS, TARGETS, Draws, Net, Stateful, Stream, loader
from torch.utils.data import TensorDataset

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}


def plain():
    net = Net()
    pl.Trainer(max_epochs=5, **QUIET).fit(net, loader())
    return net


def accumulation():
    net = Net()
    pl.Trainer(max_epochs=5, accumulate_grad_batches=4, gradient_clip_val=1.0, **QUIET).fit(net, loader(6))
    return net


def estimated():
    net = Net("steps")
    pl.Trainer(max_epochs=5, **QUIET).fit(net, loader())
    return net


def limited():
    """Ends after so many steps, within an epoch."""
    net = Net("epochs")
    pl.Trainer(max_steps=40, **QUIET).fit(net, loader(), loader(24, shuffle=False, data=TensorDataset))
    return net


def limited_plateau():
    net = Net("plateau", lr=0.03)
    pl.Trainer(max_steps=120, **QUIET).fit(net, loader())
    net.register_buffer("rate", torch.tensor(net.optimizers().param_groups[0]["lr"]))
    return net


def workers():
    net = Net()
    pl.Trainer(max_epochs=5, **QUIET).fit(net, loader(workers=2, generator=torch.Generator().manual_seed(6)))
    return net


def validated():
    net = Net("plateau", lr=0.03)
    best = pl.callbacks.ModelCheckpoint(monitor="val_loss")
    patience = pl.callbacks.EarlyStopping("val_loss", patience=2, min_delta=0.02)
    trainer = pl.Trainer(max_epochs=12, val_check_interval=4, callbacks=[best, patience], **QUIET)
    trainer.fit(net, loader(), loader(24, shuffle=False, data=TensorDataset))
    found = trainer.test(net, loader(24, shuffle=False, data=TensorDataset), ckpt_path="best")
    net.register_buffer("tested", torch.tensor(found[0]["test_loss"]))
    net.register_buffer("steps", torch.tensor(trainer.global_step))
    return net


def ranks():
    """Says what it would say on a laptop."""
    net = Net("plateau", lr=0.03)
    best = pl.callbacks.ModelCheckpoint(monitor="val_loss")
    here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "ddp_spawn"}
    trainer = pl.Trainer(
        max_epochs=5, accumulate_grad_batches=2, val_check_interval=5, callbacks=[best], **here, **QUIET
    )
    trainer.fit(net, loader(4), loader(24, shuffle=False, data=TensorDataset))
    return net


def twice():
    first, second = Net(), Net("steps")
    pl.Trainer(max_epochs=3, **QUIET).fit(first, loader())
    second.load_state_dict(first.state_dict())
    nets.BEFORE = 36
    trainer = pl.Trainer(max_epochs=3, reload_dataloaders_every_n_epochs=1, **QUIET)
    trainer.fit(second, loader(12))
    return second


def several():
    net = Net()
    pl.Trainer(max_epochs=4, **QUIET).fit(net, {"a": loader(), "b": loader(20)})
    return net


def stream():
    net = Net()
    pl.Trainer(max_epochs=5, **QUIET).fit(net, loader(data=Stream))
    return net


def stateful():
    net = Net("plateau", lr=0.03)
    pl.Trainer(max_epochs=5, accumulate_grad_batches=2, **QUIET).fit(net, Stateful())
    return net


def draws():
    net = Net()
    subset = torch.utils.data.Subset(Draws(ROWS, TARGETS), range(48))
    pl.Trainer(max_epochs=1, **QUIET).fit(net, torch.utils.data.DataLoader(subset, 8))
    return net


def diverges():
    net = Net(lr=float("inf"))
    pl.Trainer(max_epochs=5, **QUIET).fit(net, loader())
    return net


def scheduled_full_batch():
    """An epoch is one batch."""
    net = Net("plateau")
    pl.Trainer(max_epochs=50, **QUIET).fit(net, loader(96), loader(96, shuffle=False))
    return net


if __name__ == "__main__":
    for shape in sys.argv[1:]:
        nets.BEFORE = 0
        pl.seed_everything(3)
        trained = globals()[shape]()
        torch.save(trained.state_dict(), "final.pt" if len(sys.argv) == 2 else f"{shape}.pt")
