"""Hugging Face's Trainer in an unchanged program: every call of `train` saves into a folder of its own, and resumes.

`Trainer.train` of this process is wrapped; the rest are callbacks and the public hook `get_batch_samples`. What this
puts right in Transformers' own resume is in docs/decisions.md.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from trainmaster_api.messages import Resume

from trainmaster_trainer.backends.script.session import Session
from trainmaster_trainer.errors import ConfigurationError, NonFiniteLoss

from . import checkpoint
from .saver import Saver

FOLDER = "trainmaster-transformers"


class Trainings:
    """The calls of `train` of a program, in their order."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.before = 0
        """Steps of the calls that have ended."""
        self.is_running = False
        self._count = 0

    def run(self, trainer: Any, train: Any, args: Any, kwargs: Any) -> Any:
        """Call `train`, from its newest checkpoint."""
        call = inspect.signature(train).bind(trainer, *args, **kwargs)
        if self.is_running:
            return train(*call.args, **call.kwargs)
        self.is_running = self.session.gate.is_framework = self.session.progress.is_told = True
        try:
            words = _own_way(trainer, call.arguments)
            if words:
                self.session.promise(Resume.SCRIPT, words)
                return train(*call.args, **call.kwargs)
            return self._run(trainer, train, call)
        finally:
            self.is_running = self.session.saves_on_stop = self.session.gate.is_framework = False
            self.session.progress.is_told = False
            self.before += trainer.state.global_step

    def _run(self, trainer: Any, train: Any, call: inspect.BoundArguments) -> Any:
        world, seen = self.session.context.world_size, trainer.args.world_size
        if seen != world:  # each would train a model of its own
            raise ConfigurationError(
                f"the job has {world} workers and TrainingArguments sees {seen}: import Trainer before "
                "TrainingArguments is called, and set `use_cpu` there where there is no GPU"
            )
        self._count += 1
        folder = self.session.folders.watched[0] / FOLDER / f"train-{self._count}"
        found = checkpoint.newest(self.session, folder)
        if found is not None:
            call.arguments["resume_from_checkpoint"] = str(found.folder)
        elif call.arguments.get("resume_from_checkpoint") and self.session.has_set:
            self.session.promise(
                Resume.SCRIPT, "the program resumes from a checkpoint of its own: as exactly as Transformers does"
            )
        self.session.promise(Resume.EXACT)
        _say_what_is_left_out(self.session, trainer)
        prepare(self.session, trainer)
        saver = Saver(self.session, trainer, folder, found, self.before)
        self.session.saves_on_stop = True
        if found is not None and found.is_done:
            return saver.replay()
        return self._train(trainer, saver, lambda: train(*call.args, **call.kwargs))

    def _train(self, trainer: Any, saver: Saver, train: Any) -> Any:
        args = trainer.args
        _judge_best(self.session, args)
        evaluates, get = args.eval_on_start, trainer.get_batch_samples
        if saver.found is not None:
            args.eval_on_start = False  # it was done before the first step of all
        saver.callback = _callback(saver)
        trainer.add_callback(saver.callback)
        trainer.get_batch_samples = functools.partial(saver.fetch, get)
        try:
            output = train()
        finally:
            del trainer.get_batch_samples
            trainer.remove_callback(saver.callback)
            args.eval_on_start = evaluates
        saver.finish(output)
        return output


def install(session: Session, module: ModuleType) -> None:
    """Wrap the Trainer of a program that has just imported it."""
    trainings = session.parts.setdefault("transformers", Trainings(session))
    if not hasattr(module.Trainer, "get_batch_samples"):
        session.promise(Resume.SCRIPT, "this Transformers is older than 4.46: saving and resuming are the program's")
        return
    if session.context.world_size > 1 and not torch.cuda.is_available():
        # without a GPU, accelerate sees other processes only where it is told that the processor is meant
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    reporter, train = _reporter(session, trainings), module.Trainer.train

    @functools.wraps(train)
    def resuming_train(self: Any, *args: Any, **kwargs: Any) -> Any:
        return trainings.run(self, train, args, kwargs)

    def undo() -> None:
        module.Trainer.train = train
        module.DEFAULT_CALLBACKS.remove(reporter)

    module.Trainer.train = resuming_train
    module.DEFAULT_CALLBACKS.append(reporter)
    session.at_end.append(undo)


def _own_way(trainer: Any, given: dict[str, Any]) -> str:
    """Return why a call of `train` isn't ours to save; empty: it is."""
    if given.get("trial") is not None:
        return "hyperparameter_search: its trials begin again after a restart"
    if trainer.args.auto_find_batch_size:
        return (
            "auto_find_batch_size: saving and resuming are the program's, for a batch size isn't known before it fits"
        )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return "FSDP and DeepSpeed save in their own way: saving and resuming are the program's"
    from torch.distributed.tensor import DTensor  # late: it takes a while, and Transformers itself may need it

    if any(isinstance(each, DTensor) for each in trainer.model.parameters()):
        return "every worker holds a part of the model: saving and resuming are the program's"
    return ""


def _say_what_is_left_out(session: Session, trainer: Any) -> None:
    """Say that a model isn't divided although the arguments ask for it: accelerate does so on GPUs only, silently."""
    if getattr(trainer.args, "fsdp", None) and not trainer.is_fsdp_enabled:
        session.warn("fsdp isn't used: Transformers divides a model over GPUs only, so each worker trains all of it")


def prepare(session: Session, trainer: Any) -> None:
    """Set what the job needs of the Trainer's arguments."""
    args = trainer.args
    args.logging_nan_inf_filter = False  # else a loss that is NaN is logged as the mean of those before
    args.restore_callback_states_from_checkpoint = False  # the program's own objects get their states back
    for each in list(trainer.callback_handler.callbacks):
        name = type(each).__name__
        if name == "JITCheckpointCallback":
            trainer.remove_callback(each)
            session.warn("enable_jit_checkpoint is off: ranks would save at different steps; the job saves on a stop")
        elif name == "KubeflowCallback":  # it would count the steps of each call from 0
            trainer.remove_callback(each)


def _judge_best(session: Session, args: Any) -> None:
    """Say that the best model of a run is lost with its node, where the program keeps it elsewhere."""
    if not args.load_best_model_at_end:
        return
    folder = Path(args.output_dir).absolute()
    if not any(folder.is_relative_to(each.absolute()) for each in session.folders.watched):
        session.promise(
            Resume.SCRIPT,
            f"output_dir {args.output_dir} isn't among the folders of checkpoints: after a restart on another node the "
            "best model so far is lost; put it into the working directory, or name it in script.checkpoints",
        )


def _callback(saver: Saver) -> Any:
    from transformers import TrainerCallback

    class Trainmaster(TrainerCallback):
        """Hands what happens in a call of `train` to its saver."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            saver.train_begin(state, more.get("train_dataloader"))

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            saver.epoch_begin(state, more.get("train_dataloader"))

    return Trainmaster()


def _reporter(session: Session, trainings: Trainings) -> Any:
    from transformers import TrainerCallback

    class TrainmasterReporter(TrainerCallback):
        """Reports how far a training is, and its metrics; one per Trainer."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._tell(state, {})

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if trainings.is_running:
                session.progress.made(trainings.before + state.global_step, int(state.epoch or 0))

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            if trainings.is_running and state.global_step:  # one before the first step shows nothing of the trial
                session.validated(metrics or {}, args.device)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            found = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
            if not math.isfinite(found.get("loss", 0.0)):
                raise NonFiniteLoss(
                    f"the training loss is {found['loss']} at step {state.global_step}; lower learning_rate, or set "
                    "max_grad_norm"
                )
            if "learning_rate" in found:
                found["lr"] = found.pop("learning_rate")
            found.pop("epoch", None)
            self._tell(state, found)

        def _tell(self, state: Any, metrics: dict[str, float]) -> None:
            if not trainings.is_running:  # an evaluation or a prediction after it
                session.progress.tell(None, None, None, metrics)
                return
            before, total = trainings.before, state.max_steps
            epoch = int(state.epoch or 0)
            session.progress.tell(before + state.global_step, before + total if total else None, epoch, metrics)

    return TrainmasterReporter
