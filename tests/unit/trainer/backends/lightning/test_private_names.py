"""What the shim reads of Lightning and torch that isn't public is still there, in the versions that we pin.

Each has a fallback, and most runs would only resume less exactly without it: nothing else may notice.
"""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader


def test_names_of_loops(tmp_path: Path) -> None:
    trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, barebones=True)
    loop = trainer.fit_loop
    assert isinstance(loop._last_train_dl_reload_epoch, int | float)
    assert isinstance(loop.epoch_loop._batches_that_stepped, int)
    assert isinstance(loop.epoch_loop._results, dict)
    assert {"ready", "completed"} <= set(loop.epoch_loop.batch_progress.total.state_dict())
    loop.restarting = True
    loop.on_iteration_done()
    assert not loop.restarting


def test_names_of_loggers_strategies_and_tuners(tmp_path: Path) -> None:
    assert CSVLogger(str(tmp_path))._version is None
    strategy = DDPStrategy(start_method="spawn")
    assert (strategy._start_method, strategy._ddp_comm_state, strategy._model_averaging_period) == ("spawn", None, None)
    assert BatchSizeFinder()._early_exit is False
    assert LearningRateFinder()._early_exit is False


def test_names_of_loaders() -> None:
    rows = iter(DataLoader(torch.arange(3), 1))  # type: ignore[arg-type]
    next(rows._sampler_iter)
    assert next(rows).tolist() == [1], "what is taken from the sampler isn't read"
