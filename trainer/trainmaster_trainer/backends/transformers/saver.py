"""Saves of one call of `train`: at the job's interval and on a stop, at the same step on every rank; and the resume.

A save is made when the batches of a step are asked for: the step before is done with its log, evaluation, schedule and
callbacks, and a step follows, so a restart never makes one too many.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from trainmaster_api.messages import Resume

from trainmaster_trainer.backends.script.session import Session
from trainmaster_trainer.backends.torch.control_point import ControlPoint
from trainmaster_trainer.checkpoint.interval import AUTO, Interval
from trainmaster_trainer.checkpoint.state import get_rng, set_rng

from . import checkpoint, data
from .callbacks import Callbacks

_LOOKED_AT = 4  # batches of an epoch at which it is looked for draws


class Saver:
    """What is done in one call of `train`.

    Args:
        session: Of the program.
        trainer: Transformers'.
        folder: For the checkpoints of this call.
        found: The newest of them, from an earlier attempt.
        before: Steps of earlier calls.
    """

    def __init__(
        self, session: Session, trainer: Any, folder: Path, found: checkpoint.Found | None, before: int
    ) -> None:
        self.session, self.trainer, self.folder, self.found, self.before = session, trainer, folder, found, before
        self.callback: Any = None
        self._mine = self._own_part()
        if found is not None:
            session.gate.load(found.ours.get("validations", 0))
        self._is_resuming = found is not None
        self._control: ControlPoint | None = None
        self._callbacks: Callbacks | None = None
        self._epoch: dict[str, Any] = {}
        self._fetched = 0
        self._is_due = self._must_stop = False
        self._saved_at, self._saved_step, self._cost = time.monotonic(), 0, 0.0
        self._interval = Interval(AUTO, waits=True)
        self._every_steps = self._every_epochs = 0

    def _own_part(self) -> dict[str, Any] | None:
        """Return this rank's part of the checkpoint; None: it has none."""
        if self.found is None:
            return None
        ranks, world = self.found.ours["ranks"], self.trainer.args.world_size
        if len(ranks) != world:
            self.session.promise(
                Resume.SCRIPT,
                f"the checkpoint is of {len(ranks)} workers and there are {world}: random states and the order of the "
                "data begin again, so the run doesn't resume exactly",
            )
            return None
        return dict(ranks[self.trainer.args.process_index])

    # -- callbacks ------------------------------------------------------------------------------------------------
    def train_begin(self, state: Any, loader: Any) -> None:
        """Start the clock of saves at the step that training begins with."""
        data.judge(self.session, self.trainer, loader)
        context = dataclasses.replace(self.session.context, device=self.trainer.args.device)
        self._control = ControlPoint(context, state.global_step)
        self._interval = Interval(context.job.spec.checkpoint.every, waits=True)
        self._every_steps, self._every_epochs = self._interval.steps, self._interval.epochs
        self._saved_at, self._saved_step = time.monotonic(), state.global_step

    def epoch_begin(self, state: Any, loader: Any) -> None:
        """Note what the order of an epoch is drawn from, or put it back."""
        owned = data.generators(loader)
        if self._is_resuming and self._mine is not None:
            set_rng(self._mine["epoch"]["random"])
            for each, own in zip(owned, self._mine["epoch"]["generators"], strict=False):
                each.set_state(own)
        elif not self._is_resuming and state.global_step and not float(state.epoch).is_integer():
            self.session.promise(
                Resume.SCRIPT,
                "an epoch ended before its last batch: Transformers takes the position in the data from the number of "
                "steps, and resumes at another one",
            )
        self._epoch = {"random": get_rng(), "generators": [each.get_state() for each in owned]}
        self._fetched = 0

    def fetch(self, get: Any, *args: Any, **kwargs: Any) -> Any:
        """Get the batches of a step; the moment for a save."""
        if self._is_resuming:
            return self._resume(get, *args, **kwargs)
        if self._callbacks is None:
            self._callbacks = Callbacks(self.trainer, self.callback)
        self._point()
        before = data.seen() if 0 < self._fetched < _LOOKED_AT else None  # with the first, an epoch's order is drawn
        found = get(*args, **kwargs)
        if before is not None and data.has_drawn(before):
            self.session.promise(Resume.LOADER, "" if self.session.resume is Resume.LOADER else data.DRAWS)
        self._fetched += 1
        return found

    def _resume(self, get: Any, *args: Any, **kwargs: Any) -> Any:
        self._is_resuming = False
        assert self.found is not None
        callbacks = self._callbacks = Callbacks(self.trainer, self.callback)
        callbacks.put_back(self.found.ours["callbacks"])
        found = get(*args, **kwargs)  # draws the order of the epoch, as at its beginning
        if self._mine is not None:
            self._fetched = self._mine["fetched"]
            if self._fetched:
                set_rng(self._mine["random"])
        self._fetched += 1
        return found

    # -- the end --------------------------------------------------------------------------------------------------
    def finish(self, output: Any) -> None:
        """Keep the end of the call: a restart doesn't train it again."""
        kept = {
            "training_loss": float(output.training_loss),
            "metrics": {name: value for name, value in output.metrics.items() if isinstance(value, int | float)},
            "training": self.trainer.model.training,
        }
        self._save(kept)
        self._stop_if_wanted()

    def replay(self) -> Any:
        """Return what the call returned in an earlier attempt, with everything as it was then."""
        from transformers.trainer_utils import TrainOutput

        assert self.found is not None
        checkpoint.put_back(self.trainer, self.found)
        self._callbacks = Callbacks(self.trainer, self.callback)
        self._callbacks.put_back(self.found.ours["callbacks"])
        if self._mine is not None:
            set_rng(self._mine["random"])
        self.session.progress.tell(self.before + self.trainer.state.global_step, None, None, {})
        self._stop_if_wanted()
        output = self.found.ours["output"]
        return TrainOutput(self.trainer.state.global_step, output["training_loss"], output["metrics"])

    def _stop_if_wanted(self) -> None:
        stop = torch.tensor(int(self.session.stop_is_wanted), device=self.trainer.args.device)
        if self.trainer.args.world_size > 1 and dist.is_initialized():
            dist.broadcast(stop, src=0)
        if stop.item():
            self.session.end_stopped()

    # -- saving ---------------------------------------------------------------------------------------------------
    def _point(self) -> None:
        """Agree with the other ranks on a save or a stop, where it is time for that."""
        control, state = self._control, self.trainer.state
        if control is None:
            return
        if state.global_step >= control.next_step:
            decision = control.exchange(state.global_step, self._wants_save())
            self._is_due |= decision.save
            self._must_stop |= decision.stop
        self._is_due |= self._is_counted(state)
        if not self._is_due and not self._must_stop:
            return
        if self._fetched == 0 and self.trainer.args.dataloader_persistent_workers:
            return  # new workers would begin this epoch with a draw that old ones don't make: one step later
        self._save()
        if self._must_stop:
            self.session.end_stopped()

    def _save(self, output: dict[str, Any] | None = None) -> None:
        began = time.monotonic()
        trainer = self.trainer
        mine = {"random": get_rng(), "epoch": self._epoch, "fetched": self._fetched}
        ranks: list[Any] = [mine]
        if trainer.args.world_size > 1:
            ranks = [None] * trainer.args.world_size
            dist.all_gather_object(ranks, mine)
        trainer.store_flos()
        if trainer.is_world_process_zero():
            states = self._callbacks.state() if self._callbacks is not None else []
            ours = {"ranks": ranks, "callbacks": states, "output": output, "validations": self.session.gate.time}
            checkpoint.write(trainer, self.folder, ours)
        self._is_due, self._saved_step = False, trainer.state.global_step
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - began

    def _wants_save(self) -> bool:
        return time.monotonic() - self._saved_at >= self._interval.seconds(self._cost)

    def _is_counted(self, state: Any) -> bool:
        if number := self._every_epochs:
            epoch = float(state.epoch or 0)
            return self._fetched == 0 and epoch > 0 and epoch.is_integer() and int(epoch) % number == 0
        number = self._every_steps
        return bool(number and state.global_step // number > self._saved_step // number)
