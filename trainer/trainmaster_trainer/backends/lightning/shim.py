"""What is done to Lightning in a rank: Trainers follow our ranks, and every `fit` saves and resumes.

Both packages have it, `lightning.pytorch` and `pytorch_lightning`. Lightning has no public way to choose a checkpoint
for a call of `fit` in a program of the user's, so `Trainer.__init__` and `Trainer.fit` of this process are wrapped.
"""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any

from trainmaster_api.messages import Resume

from trainmaster_trainer.backends.script.session import Session

from . import position, versions
from .saver import KEY, Saver, numbers
from .world import follow

FOLDER = "trainmaster-lightning"
_ONE_FILE = ("SingleDevice", "DDP")  # strategies whose state is one file


# Lightning calls each of these in every step and for every callback, which takes 2 to 3 µs also where it does nothing.
_NOT_CALLED = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")


class Fits:
    """The fits of a program, in the order of their calls: each has a file of its own."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._steps: dict[Any, int] = {}
        self._count = 0
        self._is_running = False

    def run(self, module: ModuleType, trainer: Any, fit: Any, args: Any, kwargs: Any) -> Any:
        """Call `fit` of a trainer, from its newest checkpoint."""
        of_tuner = any(getattr(each, "_early_exit", False) for each in trainer.callbacks)
        if self._is_running or trainer.fast_dev_run or of_tuner:
            return fit(trainer, *args, **kwargs)
        given = inspect.signature(fit).bind(trainer, *args, **kwargs).arguments.get("ckpt_path")
        strategy = type(trainer.strategy).__name__
        words = ""
        if given is not None:
            words = f"the program passes ckpt_path={str(given)!r}: it resumes from what it says"
        elif not strategy.startswith(_ONE_FILE):
            words = f"{strategy} saves in its own way: saving and resuming are the program's"
        watchers = [_watcher(module, self.session)] if self.session.gate.is_open else []
        trainer.callbacks[:0] = watchers
        self.session.gate.is_framework = True
        try:
            if words:
                self.session.promise(Resume.SCRIPT, words)
                return fit(trainer, *args, **kwargs)
            return self._saving(module, trainer, fit, args, kwargs)
        finally:
            trainer.callbacks[:] = [each for each in trainer.callbacks if each not in watchers]
            self.session.gate.is_framework = False

    def _saving(self, module: ModuleType, trainer: Any, fit: Any, args: Any, kwargs: Any) -> Any:
        self._count += 1
        file = self.session.folders.watched[0] / FOLDER / f"fit-{self._count}.ckpt"
        before = sum(steps for each, steps in self._steps.items() if each is not trainer)
        saver = Saver(self.session, trainer, file, before)
        # rank 0 may have a file that no set holds, on a disk that the other ranks don't see
        if self.session.was_kept(file):
            versions.use(trainer, file)
            kwargs = {**kwargs, "ckpt_path": str(file)}
            if "weights_only" in inspect.signature(fit).parameters:
                kwargs["weights_only"] = False  # hyperparameters may be any object, and the file is ours
        self.session.promise(Resume.EXACT)
        callback = _callback(module, saver)
        trainer.callbacks.insert(0, callback)
        self._is_running = self.session.saves_on_stop = True
        position.Positions.active = saver.positions
        try:
            result = fit(trainer, *args, **kwargs)
            position.Positions.active = None
            saver.finish()
        finally:
            position.Positions.active = None
            trainer.callbacks.remove(callback)
            self._is_running = self.session.saves_on_stop = False
            self._steps[trainer] = trainer.global_step
        return result


def install(session: Session, module: ModuleType) -> None:
    """Wrap the Trainer of `lightning.pytorch` or `pytorch_lightning`."""
    session.at_end.append(position.install())
    fits = session.parts.setdefault("lightning", Fits(session))
    trainer = module.Trainer
    begin, fit = trainer.__init__, trainer.fit

    @functools.wraps(begin)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        wanted, said = follow(session.context, kwargs)
        if said:
            session.warn(f"Lightning's Trainer follows the workers of the job: {', '.join(said)}")
        begin(self, *args, **{**kwargs, **wanted})

    @functools.wraps(fit)
    def resuming_fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        return fits.run(module, self, fit, args, kwargs)

    def undo() -> None:
        trainer.__init__, trainer.fit = begin, fit

    trainer.__init__, trainer.fit = init, resuming_fit
    session.at_end.append(undo)


def _watcher(module: ModuleType, session: Session) -> Any:
    class TrainmasterTrial(module.Callback):  # type: ignore[name-defined,misc]
        """Asks after each validation of a fit, where it is a trial of a search, whether it continues."""

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.sanity_checking or trainer.state.fn != "fit":
                return
            found = numbers(trainer.callback_metrics)
            session.progress.tell(None, None, trainer.current_epoch, found)
            session.validated(found, trainer.strategy.root_device)

    return TrainmasterTrial()


def _callback(module: ModuleType, saver: Saver) -> Any:
    class Trainmaster(module.Callback):  # type: ignore[name-defined,misc]
        """Hands what happens to the saver."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            saver.train_start()

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            saver.batch_start()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            saver.batch_end(outputs)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            saver.epoch_end()

        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            saver.checkpoint(checkpoint)

        def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            if KEY in checkpoint:
                saver.load(checkpoint)

    for name in _NOT_CALLED:
        setattr(Trainmaster, name, None)
    return Trainmaster()
