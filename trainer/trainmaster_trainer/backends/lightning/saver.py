"""Saves of a Lightning fit: at the job's interval and on a stop, at the same step on every rank; and what is restored.

A save is made when a batch begins: the optimizer, schedulers, validation and every callback are done with the one
before. Loaders that keep a state of their own have handed the batch out by then; for them it is made when one ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset
from trainmaster_api.messages import Resume

from trainmaster_trainer.backends.script.session import Session
from trainmaster_trainer.backends.torch.control_point import ControlPoint
from trainmaster_trainer.checkpoint.interval import Interval
from trainmaster_trainer.checkpoint.state import get_rng, set_rng
from trainmaster_trainer.errors import NonFiniteLoss

from . import averages, draws, versions, world
from .position import Positions

KEY = "trainmaster"
_TELL_SECONDS = 0.5
_FILE_SECONDS = 120.0  # for a CheckpointIO that writes in the background


class Saver:
    """What our callback does in one fit.

    Args:
        session: Of the program.
        trainer: Lightning's.
        file: Checkpoint of this fit.
        before: Steps of earlier fits.
    """

    def __init__(self, session: Session, trainer: Any, file: Path, before: int) -> None:
        self.session, self.trainer, self.file, self.before = session, trainer, file, before
        self.positions = Positions(trainer, self._may_save)
        self.is_done = False
        self._is_saving = self._is_due = self._must_stop = self._is_resuming = False
        self._restored: dict[str, Any] | None = None
        self._loaded: dict[str, Any] = {}
        self._averages: dict[str, Any] = {}
        self._control: ControlPoint | None = None
        self._last_save = self._told = time.monotonic()
        self._interval, self._cost = Interval(session.context.job.spec.checkpoint.every, waits=True), 0.0
        self._every_steps, self._every_epochs = self._interval.steps, self._interval.epochs
        self._step = self._saved = self._epoch = -1
        self._zero: torch.Tensor | None = None
        self._looked_at: Any = None
        self._has_state = False

    # -- hooks ----------------------------------------------------------------------------------------------------
    def load(self, checkpoint: dict[str, Any]) -> None:
        """Take our part of a checkpoint."""
        state = checkpoint[KEY]
        self._loaded, self._is_resuming = state, True
        self.session.gate.load(state.get("validations", 0))
        self.is_done = bool(state["done"])
        self.trainer.should_stop = self.trainer.should_stop or self.is_done
        if len(state["ranks"]) != self.trainer.world_size:
            self.session.promise(
                Resume.SCRIPT,
                f"the checkpoint is of {len(state['ranks'])} workers and there are {self.trainer.world_size}: random "
                "states and the order of the data begin again, so the run doesn't resume exactly",
            )
            return
        mine = state["ranks"][self.trainer.global_rank]
        self._restored, self._averages = mine["random"], mine["averages"]
        self.positions.load(mine["positions"])

    def train_start(self) -> None:
        """Put back what Lightning doesn't, and say what can't be exact."""
        self._put_metrics_back()
        loop = self.trainer.fit_loop
        if self._loaded and hasattr(loop, "_last_train_dl_reload_epoch"):
            loop._last_train_dl_reload_epoch = self._loaded["reload"]
        self._judge()
        self.session.progress.is_told = True
        self._step = self._saved = self.trainer.global_step
        self._epoch = self.trainer.current_epoch
        self._look_at_loaders()
        context = dataclasses.replace(self.session.context, device=self.trainer.strategy.root_device)
        self._control = ControlPoint(context, 0)

    def batch_start(self) -> None:
        """Restore the random states of the first batch; save and stop if it is time."""
        self.positions.begun += 1
        self._look_at_loaders()
        if self._restored is not None:
            set_rng(self._restored)
            loop = self.trainer.fit_loop.epoch_loop
            if hasattr(loop, "_batches_that_stepped"):
                loop._batches_that_stepped = self._loaded["logged"]
            self._restored = None
        elif not self._has_state:
            self._point()

    def batch_end(self, outputs: Any) -> None:
        """Look at the loss; tell how far the fit is."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            self._look_at(loss)
        trainer = self.trainer
        if self._averages:
            averages.add(trainer, self._averages)
        if self._is_resuming:
            # Lightning leaves plateau schedules as they are at the end of an epoch in which it was restarted, because
            # it doesn't keep the metrics; we do
            self._is_resuming = False
            trainer.fit_loop.on_iteration_done()
        self.session.progress.made(self.before + trainer.global_step, trainer.current_epoch)
        if self._has_state:
            # not after the last batch: Lightning would resume behind the end of the epoch, without its hooks
            if self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and self.trainer.num_training_batches > 1:
                self._step = self.trainer.global_step
            else:
                self._point()
        if time.monotonic() - self._told > _TELL_SECONDS:
            self._tell()

    def epoch_end(self) -> None:
        """Tell the metrics of an epoch."""
        self._averages = {}
        self._tell()

    def checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add our part to a checkpoint that is ours; on every rank."""
        if not self._is_saving:
            return
        trainer = self.trainer
        is_begun = self.positions.begun > 0 and not self.is_done
        mine = {
            "random": get_rng(),
            "positions": self.positions.state() if is_begun else [],
            "averages": averages.state(trainer) if is_begun else {},
        }
        ranks: list[Any] = [mine]
        if trainer.world_size > 1:
            ranks = [None] * trainer.world_size
            dist.all_gather_object(ranks, mine)
        reload = getattr(trainer.fit_loop, "_last_train_dl_reload_epoch", 0)
        checkpoint[KEY] = {
            "ranks": ranks,
            "done": self.is_done,
            "validations": self.session.gate.time,
            "metrics": {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()},
            "logged": getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", 0),
            "reload": reload if isinstance(reload, int) else -1,
        }
        if is_begun and not self._has_state:
            _before_the_batch(checkpoint["loops"]["fit_loop"])

    # -- the end --------------------------------------------------------------------------------------------------
    def finish(self) -> None:
        """Keep the end of the fit, after `fit` of this process or an earlier one: a restart doesn't train it again."""
        self.session.progress.is_told = False  # until the next fit
        if self.is_done:
            if self._restored is not None:
                set_rng(self._restored)
            self._put_metrics_back()
        else:
            self._require_finite()
            self.is_done = True
            self._save()
        self._tell()
        if self._agreed_stop():
            self._stop()

    # -- saving ---------------------------------------------------------------------------------------------------
    def _point(self) -> None:
        """Save and stop where it is due and possible: not between the batches of an accumulation."""
        control, step = self._control, self.trainer.global_step
        if control is None:
            return
        moved, self._step = step != self._step, step
        if self.positions.begun >= control.next_step:
            self._require_finite()
            decision = control.exchange(self.positions.begun, self._wants_save())
            self._is_due |= decision.save
            self._must_stop |= decision.stop
        if self._every_steps or self._every_epochs:
            self._is_due |= self._is_counted(step, moved=moved)
            self._epoch = self.trainer.current_epoch
        if moved and (self._is_due or self._must_stop) and self.positions.are_known:
            self._save()
            if self._must_stop:
                self._stop()

    def _may_save(self) -> bool:
        """Return whether `_point` may save when the batch that is fetched next begins."""
        control = self._control
        if control is None or self._is_due or self._must_stop or self._has_state:
            return True
        if self.positions.begun + 1 >= control.next_step:
            return True
        counts = self._every_steps or self._every_epochs
        return bool(counts and self._is_counted(self.trainer.global_step, moved=True))

    def _is_counted(self, step: int, *, moved: bool) -> bool:
        if number := self._every_epochs:
            epoch = self.trainer.current_epoch
            return bool(epoch != self._epoch and epoch % number == 0)
        number = self._every_steps
        return bool(number and moved and step // number > self._saved // number)

    def _wants_save(self) -> bool:
        return time.monotonic() - self._last_save >= self._interval.seconds(self._cost)

    def _save(self) -> None:
        began = time.monotonic()
        self._require_finite()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_name(f"{self.file.name}.tmp")
        self._is_saving = True
        try:
            self.trainer.save_checkpoint(partial, weights_only=False)
        finally:
            self._is_saving = False
        if self.trainer.is_global_zero:
            while not partial.exists() and time.monotonic() - began < _FILE_SECONDS:
                time.sleep(0.05)
            versions.write(self.trainer, self.file)
            partial.replace(self.file)
        self._is_due, self._saved = False, self.trainer.global_step
        self._last_save = time.monotonic()
        self._cost = self._last_save - began

    def _agreed_stop(self) -> bool:
        stop = torch.tensor(int(self.session.stop_is_wanted), device=self.trainer.strategy.root_device)
        if self.trainer.world_size > 1 and dist.is_initialized():
            dist.broadcast(stop, src=0)
        return bool(stop.item())

    def _stop(self) -> None:
        """End this process; its newest files are stored."""
        self._tell()
        self.session.end_stopped()

    def _look_at(self, loss: torch.Tensor) -> None:
        """Note whether a loss is finite; on a GPU without waiting for it."""
        if loss.is_cpu and loss.ndim == 0:
            if not math.isfinite(loss.item()):
                self._zero = torch.tensor(math.nan)
            return
        loss = loss.detach() if loss.ndim == 0 else loss.detach().sum()
        # stays 0 while losses are finite, else NaN: one operation where `isfinite` needs several
        self._zero = loss * 0 if self._zero is None else torch.add(self._zero, loss, alpha=0)

    def _require_finite(self) -> None:
        zero, self._zero = self._zero, None
        if zero is not None and not bool(zero == 0):
            raise NonFiniteLoss(
                f"the training loss became NaN or infinite at or shortly before step {self.trainer.global_step}; "
                "nothing was saved since. Lower the learning rate, or pass detect_anomaly=True to find the operation"
            )

    # -- saying ---------------------------------------------------------------------------------------------------
    def _tell(self) -> None:
        self._told = time.monotonic()
        trainer = self.trainer
        found = numbers(trainer.callback_metrics)
        for index, optimizer in enumerate(trainer.optimizers):
            found["lr" if index == 0 else f"lr-{index}"] = float(optimizer.param_groups[0]["lr"])
        total = None
        if trainer.num_training_batches:
            estimated = trainer.estimated_stepping_batches
            total = self.before + int(estimated) if math.isfinite(estimated) else None
        self.session.progress.tell(self.before + trainer.global_step, total, trainer.current_epoch, found)

    def _put_metrics_back(self) -> None:
        for name, value in self._loaded.get("metrics", {}).items():
            self.trainer.callback_metrics.setdefault(name, value)

    def _look_at_loaders(self) -> None:
        loaders = self.trainer.train_dataloader
        if loaders is not self._looked_at:
            self._looked_at = loaders
            self._has_state = any(hasattr(each, "state_dict") for each in self.positions.loaders)

    def _judge(self) -> None:
        """Say how exactly this fit resumes."""
        promise = self.session.promise
        if words := world.unkept(self.trainer.strategy):
            promise(Resume.SCRIPT, words)
        for loader in self.positions.loaders:
            if hasattr(loader, "state_dict"):
                promise(Resume.LOADER)
            elif not isinstance(loader, DataLoader):
                name = type(loader).__name__
                words = f"the training data is a {name} without a state: a resumed epoch reads it from its beginning"
                promise(Resume.SCRIPT, words)
            elif isinstance(loader.dataset, IterableDataset):
                promise(
                    Resume.LOADER,
                    "the training data is an IterableDataset: a resumed epoch reads and drops what was read before, "
                    "which is exact only if it yields the same samples again",
                )
            elif loader.num_workers and loader.persistent_workers:
                words = "persistent_workers: a resumed run is exact unless the dataset draws random numbers itself"
                promise(Resume.LOADER, words)
            elif not loader.num_workers and (path := draws.of_its_own(loader.dataset)):
                words = f"the training data has a random generator of its own ({path})"
                promise(Resume.LOADER, f"{words}: a resumed epoch draws other numbers from it")
        if self.trainer.reload_dataloaders_every_n_epochs:
            promise(
                Resume.LOADER,
                "reload_dataloaders_every_n_epochs: a resumed run is exact unless train_dataloader() draws random "
                "numbers or depends on the epoch in which it is called",
            )


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return those of a Trainer's metrics that are single numbers."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            found[name] = float(value)
    return found


def _before_the_batch(loop: dict[str, Any]) -> None:
    """Take the batch that has just begun out of a loop's progress: a resumed fit begins with it."""
    progress = loop["epoch_loop.batch_progress"]
    for part in (progress["total"], progress["current"]):
        part["ready"] = part["completed"]
    progress["is_last_batch"] = False
