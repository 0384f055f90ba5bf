"""Everything that exists before the first step: data, model, optimizer, order, and the state to go on from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.schedule import SCHEDULES, PlateauArgs

from trainmaster_trainer.checkpoint import State
from trainmaster_trainer.checkpoint.state import RankState, get_rng, seed_everything, set_rng
from trainmaster_trainer.context import Context
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.order import Cursor
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.models import build_model
from trainmaster_trainer.tasks import Task, build_task
from trainmaster_trainer.tasks.regression import RegressionTask

from .no_dynamo import DistributedDataParallel
from .optim import build_optimizer
from .schedule import Patience, factor, steps_of


@dataclass
class Setup:
    """The parts of a run on one rank.

    Attributes:
        model: The bare model: saved, evaluated, packaged.
        replica: The same weights behind DDP where there is more than one rank: trained.
        lr_scale: What plateau has made of the peak learning rate.
        bad_steps: Device scalar: steps since the first whose gradients weren't finite, that one included; else 0.
        share: Device scalar: weight of a micro-batch in its step.
        loss_sum: Device scalar: loss of this rank's micro-batches since it was last logged, added up.
        loss_steps: How many steps that is.
        best: Best value of the checkpoint's metric so far.
    """

    context: Context
    data: Prepared
    task: Task
    model: nn.Module
    replica: nn.Module
    optimizer: torch.optim.Optimizer
    cursor: Cursor
    total_steps: int
    early: Patience | None
    plateau: Patience | None
    bad_steps: Tensor
    loss_sum: Tensor
    share: Tensor
    step: int = 0
    loss_steps: int = 0
    lr_scale: float = 1.0
    best: float | None = None
    stopped_early: bool = False
    parameters: list[nn.Parameter] = field(default_factory=list)

    @property
    def spec(self) -> Spec:
        """What was asked."""
        return self.context.job.spec

    def lr(self) -> float:
        """Learning rate of the next step."""
        training = self.spec.training
        share = factor(training.schedule, self.step, self.total_steps, self.cursor.steps_per_epoch)
        return training.optimizer.lr * share * self.lr_scale

    def loop_state(self) -> dict[str, Any]:
        """What a resume needs besides tensors: a few numbers."""
        return {
            "step": self.step,
            "lossSteps": self.loss_steps,
            "lrScale": self.lr_scale,
            "best": self.best,
            "stoppedEarly": self.stopped_early,
            "early": self.early.state() if self.early else None,
            "plateau": self.plateau.state() if self.plateau else None,
        }

    def restore(self, state: State) -> None:
        """Take a checkpoint's state.

        Raises:
            ConfigurationError: It is the state of another model or optimizer (run.resumeFrom).
        """
        context = self.context
        _require_fit(state, self.model, self.optimizer)
        self.model.load_state_dict(state.model)
        asked = [{key: value for key, value in g.items() if key != "params"} for g in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state.optimizer)
        for group, options in zip(self.optimizer.param_groups, asked, strict=True):
            group.update(options)  # run.resumeFrom takes moments from the other run, hyperparameters from this spec
        self.step = int(state.loop["step"])
        self.loss_steps = int(state.loop["lossSteps"])
        self.lr_scale = float(state.loop["lrScale"])
        self.best = state.loop["best"]
        self.stopped_early = bool(state.loop["stoppedEarly"])
        for watcher, saved in ((self.early, state.loop["early"]), (self.plateau, state.loop["plateau"])):
            if watcher is not None and saved is not None:
                watcher.restore(saved)
        if len(state.ranks) == context.world_size:
            set_rng(state.ranks[context.rank]["rng"], context.device)
            self.loss_sum.fill_(state.ranks[context.rank]["lossSum"])
        else:  # other workers than wrote it: the order of rows stays, the draws of dropout are new
            seed_everything(self.spec.training.loop.seed, context.rank, self.step)
            self.loss_sum.fill_(sum(rank["lossSum"] for rank in state.ranks) / len(state.ranks))


def build(context: Context) -> Setup:
    """Load the data and make model and optimizer; the same on every rank.

    Raises:
        ConfigurationError: The specification doesn't fit the data.
        DataError: The data can't be read.
    """
    training = context.job.spec.training
    data = load_data(context.job, context.base_dir, os.environ)
    data.move(context.device)
    task = build_task(training.task, len(data.rows.labels))
    if isinstance(task, RegressionTask):
        task.mean, task.std = data.target_mean, data.target_std
    _require_feedable(context)

    torch.manual_seed(training.loop.seed)  # the same initial weights on every rank and for every world size
    model = build_model(training.model, data.rows.shape, task.outputs).to(context.device)
    replica: nn.Module = model
    if context.world_size > 1:
        replica = DistributedDataParallel(model, gradient_as_bucket_view=True, forward_sync_buffers=False)
    cursor = Cursor(data.train, training.data.batch_size, training.loop.seed)
    early = training.loop.early_stopping
    if SCHEDULES.get(training.schedule.name) is None:
        raise ConfigurationError(f"schedule {training.schedule.label} is not one that this version can build")
    plateau = training.schedule.typed_args(PlateauArgs) if training.schedule.name == "plateau" else None
    setup = Setup(
        context=context,
        data=data,
        task=task,
        model=model,
        replica=replica,
        optimizer=build_optimizer(training.optimizer, model),
        cursor=cursor,
        total_steps=steps_of(training.loop.duration, cursor.steps_per_epoch),
        early=Patience(early.metric, early.patience, early.min_delta) if early else None,
        plateau=Patience(plateau.metric, plateau.patience) if plateau else None,
        bad_steps=torch.zeros((), device=context.device),
        loss_sum=torch.zeros((), device=context.device),
        share=torch.tensor(1 / training.loop.gradient_accumulation, device=context.device),
        parameters=[p for p in model.parameters() if p.requires_grad],
    )
    seed_everything(training.loop.seed, context.rank, 0)
    return setup


def _require_fit(state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    here = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: list(tensor.shape) for name, tensor in state.model.items()}
    wrong = [
        f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ConfigurationError(
            f"run.resumeFrom: that run's weights don't fit training.model: {'; '.join(wrong[:3])}{more}; "
            "use the model and data of that run"
        )
    if set(state.optimizer["param_groups"][0]) != set(optimizer.param_groups[0]):
        raise ConfigurationError("run.resumeFrom: that run had another optimizer; use its optimizer.name")


def _require_feedable(context: Context) -> None:
    training = context.job.spec.training
    parts = context.world_size * training.loop.gradient_accumulation
    if training.data.batch_size % parts:
        raise ConfigurationError(
            f"data.batchSize {training.data.batch_size} is not a multiple of {context.world_size} workers x "
            f"{training.loop.gradient_accumulation} gradientAccumulation; every worker needs the same share"
        )


def share_state(context: Context, state: State | None) -> State | None:
    """Rank 0's state on every rank: storage is read once."""
    if context.world_size == 1:
        return state
    box = [state]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_ranks(setup: Setup) -> list[RankState]:
    """What differs between the ranks, on rank 0; others get an empty list."""
    context = setup.context
    mine: RankState = {"rng": get_rng(context.device), "lossSum": float(setup.loss_sum)}
    if context.world_size == 1:
        return [mine]
    gathered: list[Any] = [None] * context.world_size if context.rank == 0 else []
    dist.gather_object(mine, gathered if context.rank == 0 else None, dst=0)
    return gathered


def share_weights(setup: Setup) -> None:
    """Give every rank the weights of rank 0's model."""
    if setup.context.world_size > 1:
        for tensor in setup.model.state_dict().values():
            dist.broadcast(tensor, src=0)
