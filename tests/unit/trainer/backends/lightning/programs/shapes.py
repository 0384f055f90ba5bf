"""The programs: `python shapes.py SHAPE ...`. None of them knows that it may be killed."""

import os
import sys
import types

import lightning.pytorch as pl
import nets
import torch
from nets import ROWS, TARGETS, Draws, Net, Stateful, Stream, loader
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
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


class Part(Net):
    """Has a layer that no loss reaches, and says what its DDP was made with."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Linear(2, 2)
        self.register_buffer("options", torch.zeros(3))

    def on_train_batch_end(self, outputs, batch, index):
        wrapped = self.trainer.strategy.model
        is_hooked = self.trainer.strategy._ddp_comm_hook is halve  # which Lightning uses on GPUs only
        options = [wrapped.find_unused_parameters, wrapped.gradient_as_bucket_view, is_hooked]
        self.options = torch.tensor(options, dtype=torch.float32)


def halve(state, bucket):
    """A communication hook: gradients travel in half the bytes."""
    return bf16_compress_hook(state, bucket)


def options():
    """Says how gradients travel, and also what holds only on a cluster of another kind."""
    from lightning.pytorch.plugins.environments import SLURMEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    net = Part()
    strategy = DDPStrategy(
        start_method="spawn", find_unused_parameters=True, gradient_as_bucket_view=True, ddp_comm_hook=halve
    )
    there = {"accelerator": "cpu", "devices": 8, "num_nodes": 4, "plugins": [SLURMEnvironment(auto_requeue=False)]}
    pl.Trainer(max_epochs=3, strategy=strategy, **there, **QUIET).fit(net, loader(4))
    return net


def hooked():
    """Its communication hook keeps what it left out of the gradients."""
    from lightning.pytorch.strategies import DDPStrategy
    from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

    net = Net()
    state = powerSGD_hook.PowerSGDState(process_group=None, start_powerSGD_iter=2)
    strategy = DDPStrategy(ddp_comm_state=state, ddp_comm_hook=powerSGD_hook.powerSGD_hook)
    pl.Trainer(max_epochs=1, strategy=strategy, **QUIET).fit(net, loader())
    return net


class Divided(Net):
    """Each worker holds a part of every weight, by torch's FSDP."""

    def configure_model(self):
        if not isinstance(self.net[0].weight, DTensor):
            for layer in (self.net[0], self.net[2]):
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def on_train_epoch_end(self):
        pass


def divided():
    """Saves and reads its checkpoints itself, as everyone does who divides a model."""
    from lightning.pytorch.strategies import ModelParallelStrategy

    net = Divided()
    saves = pl.callbacks.ModelCheckpoint("saved", save_last=True, every_n_train_steps=4)
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", devices=2, strategy=strategy, callbacks=[saves], **QUIET)
    last = "saved/last.ckpt" if os.path.exists("saved/last.ckpt") else None
    trainer.fit(net, loader(4), ckpt_path=last)
    full = get_model_state_dict(net, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return types.SimpleNamespace(state_dict=lambda: full)


def refused(**given):
    """What Lightning or the job refuses."""
    net = Net()
    pl.Trainer(max_epochs=1, **given, **QUIET).fit(net, loader())
    return net


def gpu():
    return refused(accelerator="gpu")


def fsdp():
    return refused(strategy="fsdp")


def fsdp_object():
    from lightning.pytorch.strategies import FSDPStrategy

    return refused(strategy=FSDPStrategy(sharding_strategy="SHARD_GRAD_OP"), accelerator="cpu")


def deepspeed():
    return refused(strategy="deepspeed_stage_2")


def unknown():
    return refused(strategy="ddp_spwan")


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
