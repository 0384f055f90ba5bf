"""Everything that exists before the first step: data, model, optimizer, order, and the state to resume from."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from trainmaster_api.layout import Fingerprint
from trainmaster_api.messages import Resume
from trainmaster_api.spec.job import Spec

from trainmaster_trainer.checkpoint.state import RankState, State, get_rng, seed_everything, set_rng
from trainmaster_trainer.context import Context
from trainmaster_trainer.data import Prepared, identity
from trainmaster_trainer.data.images.mix import Mix
from trainmaster_trainer.data.loader import Loader, Workers
from trainmaster_trainer.data.order import Sampler
from trainmaster_trainer.data.own import IterableRows
from trainmaster_trainer.data.stream_loader import StreamLoader, StreamOrder, stream_loader
from trainmaster_trainer.errors import ConfigurationError, TrainingError
from trainmaster_trainer.references import use_folder
from trainmaster_trainer.tasks import Trained

from .accumulate import Accumulator
from .parts import Parts, parts_of, states_of
from .patience import Patience
from .schedule import Schedule, steps_of

T = TypeVar("T")

OPT_OUT = "resumes_exactly"  # attribute of a model; False: what it keeps is its own affair


@dataclass
class Setup:
    """The parts of a run on one rank.

    Attributes:
        model: The bare model: saved, evaluated, packaged.
        replica: The same weights behind DDP where there is more than one rank: trained.
        schedule: Share of the peak learning rate at each step.
        early: Early stopping, if there is any.
        label: The model, for sentences.
        is_own: Whether code of the user's takes part in a step.
        rates: Peak learning rate of each group of the optimizer.
        bad_steps: Device scalar: steps since the first whose gradients weren't finite, that one included; else 0.
        grad_norm: Device scalar: norm of the last step's gradients, before clipping.
        share: Device scalar: weight of a micro-batch in its step.
        loss_sum: Device scalar: loss of this rank's micro-batches since it was last logged, added up.
        loss_steps: How many steps that is.
        best: Best value of the checkpoint's metric so far.
        fingerprint: What identifies the data; on rank 0 only.
    """

    context: Context
    label: str
    is_own: bool
    data: Prepared
    task: Trained
    model: nn.Module
    replica: nn.Module
    optimizer: torch.optim.Optimizer
    rates: list[float]
    sampler: Sampler | StreamOrder
    loader: Loader | StreamLoader
    total_steps: int
    schedule: Schedule
    early: Patience | None
    bad_steps: Tensor
    loss_sum: Tensor
    grad_norm: Tensor
    share: Tensor
    step: int = 0
    loss_steps: int = 0
    best: float | None = None
    stopped_early: bool = False
    parameters: list[nn.Parameter] = field(default_factory=list)
    fingerprint: Fingerprint | None = None
    accumulator: Accumulator = field(init=False)

    def __post_init__(self) -> None:
        self.accumulator = Accumulator(self.share, self.loss_sum, self.context.world_size)

    @functools.cached_property
    def last_step(self) -> int:
        """Step at which this run ends: that of its segment, if it is a trial of a population."""
        segment = self.context.segment
        if segment is None:
            return self.total_steps
        every = steps_of(self.spec.training.loop.validate_every, self.sampler.steps_per_epoch)
        return min(self.total_steps, segment.until * every)

    @property
    def spec(self) -> Spec:
        """What was asked."""
        return self.context.job.spec

    @property
    def resume(self) -> Resume:
        """How exactly this run resumes: order and draws are ours, unless the data is a stream of the user's."""
        if not getattr(self.model, OPT_OUT, True):
            return Resume.SCRIPT
        return Resume.LOADER if isinstance(self.data.rows, IterableRows) else Resume.EXACT

    def lr(self) -> float:
        """Return the learning rate of the next step, of the first group."""
        return self.lrs()[0]

    def lrs(self) -> list[float]:
        """Return the learning rates of the next step, of each group."""
        share = self.schedule.share(self.step)
        return [rate * share for rate in self.rates]

    def buffers(self) -> list[Tensor]:
        """Return the model's buffers, such as the running statistics of batch norm."""
        return list(self.model.buffers())

    def loop_state(self) -> dict[str, Any]:
        """Return what a resume needs in addition to tensors: a few numbers."""
        return {
            "step": self.step,
            "lossSteps": self.loss_steps,
            "best": self.best,
            "stoppedEarly": self.stopped_early,
            "early": self.early.state() if self.early else None,
        }

    def parts_state(self) -> dict[str, Any]:
        """Return the state of the parts that have one: of a schedule that remembers something, of a loss's buffers."""
        loss = self.task.module
        found: dict[str, Any] = {
            "schedule": self.schedule.state_dict(),
            "loss": loss.state_dict() if loss else {},
            "state": states_of(self.task),
        }
        return {name: state for name, state in found.items() if state}

    def restore(self, state: State) -> None:
        """Take a checkpoint's state.

        Raises:
            ConfigurationError: It is the state of another model or optimizer (run.resumeFrom).
        """
        context = self.context
        _require_fit(state, self.model, self.optimizer)
        # In place: DDP and the optimizer hold these very tensors, so both continue with the restored weights.
        self.model.load_state_dict(state.model)
        asked = [{key: value for key, value in g.items() if key != "params"} for g in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state.optimizer)
        # load_state_dict also restores lr, betas and weight decay. In a resume they are the same, because the spec is
        # immutable; with run.resumeFrom the moments are the other run's and the hyperparameters this spec's.
        if state.is_foreign:
            for group, options in zip(self.optimizer.param_groups, asked, strict=True):
                group.update(options)
        self.step = int(state.loop["step"])
        self.loss_steps = int(state.loop["lossSteps"])
        self.best = state.loop["best"]
        self.stopped_early = bool(state.loop["stoppedEarly"])
        if self.early is not None and state.loop["early"] is not None:
            self.early.restore(state.loop["early"])
        self.schedule.load_state_dict(state.parts.get("schedule", {}))
        if self.task.module is not None and "loss" in state.parts:
            self.task.module.load_state_dict(state.parts["loss"])
        for name, each in state.parts.get("state", {}).items():
            if name in self.task.states:
                self.task.states[name].load_state_dict(each)
        if isinstance(self.loader, StreamLoader):
            self.loader.restore([rank.get("stream") for rank in state.ranks])
        if len(state.ranks) == context.world_size:
            set_rng(state.ranks[context.rank]["rng"], context.device)
            self.loss_sum.fill_(state.ranks[context.rank]["lossSum"])
        else:
            # A different number of workers than wrote it (run.resumeFrom): the order of rows stays the same, because it
            # doesn't depend on the ranks; dropout draws new masks, because there is one RNG state per rank.
            seed_everything(self.spec.training.loop.seed, context.rank, self.step)
            self.loss_sum.fill_(sum(rank["lossSum"] for rank in state.ranks) / len(state.ranks))


def build(context: Context) -> Setup:
    """Load the data and build model and optimizer; the same on every rank.

    Raises:
        ConfigurationError: The specification doesn't fit the data.
        DataError: The data can't be read.
        DataChanged: It is not the data that the run began with.
    """
    training = context.job.spec.training
    use_folder(context.code_dir)
    # before the data is read: a column that is gone would fail as an error of the spec, which it isn't
    fingerprint = on_rank_0(
        context, lambda: identity.check(context.run, context.job, context.base_dir, os.environ)
    )  # fmt: skip
    parts = parts_of(context)
    data = parts.data
    if fingerprint is not None and training.data.source is None:
        fingerprint = identity.of_dataset(fingerprint, getattr(data.rows, "dataset", data.rows))
    sampler, loader, total_steps = feed(context, data, parts.task.outputs)
    return _assembled(context, parts, sampler, loader, total_steps, fingerprint)


def build_again(setup: Setup, loader: Loader | StreamLoader) -> Setup:
    """Return a second instance of everything that has a state, on the same data; collective, and it draws.

    Args:
        setup: The first.
        loader: Where the second gets its batches from.
    """
    parts = parts_of(setup.context, setup.data)
    return _assembled(setup.context, parts, setup.sampler, loader, setup.total_steps, setup.fingerprint)


def _assembled(
    context: Context,
    parts: Parts,
    sampler: Sampler | StreamOrder,
    loader: Loader | StreamLoader,
    total_steps: int,
    fingerprint: Fingerprint | None,
) -> Setup:
    training, task, model = context.job.spec.training, parts.task, parts.model
    if training.distributed.sync_batch_norm and context.world_size > 1:
        model = synchronize_batch_norm(model, context.device, parts.label)
    _require_tensors(model, parts.label)
    optimizer = parts.optimizer(model)
    early = training.loop.early_stopping
    setup = Setup(
        context=context,
        label=parts.label,
        is_own=parts.is_own,
        data=parts.data,
        task=task,
        model=model,
        # Before each forward DDP broadcasts rank 0's buffers (batch norm's running statistics), which are those that
        # are saved: so a resumed rank computes with what it would have had. `gradient_as_bucket_view` saves a copy of
        # all gradients.
        replica=DistributedDataParallel(model, gradient_as_bucket_view=True) if context.world_size > 1 else model,
        optimizer=optimizer,
        rates=[float(g["lr"]) if parts.keeps_rates else training.optimizer.lr for g in optimizer.param_groups],
        sampler=sampler,
        loader=loader,
        total_steps=total_steps,
        schedule=Schedule(training.schedule, task, total_steps, sampler.steps_per_epoch, parts.schedule),
        early=Patience(
            task.objective(early.metric, "loop.earlyStopping.metric"), early.patience, early.min_delta
        ) if early else None,
        bad_steps=torch.zeros((), device=context.device),
        loss_sum=torch.zeros((), device=context.device),
        grad_norm=torch.zeros((), device=context.device),
        share=torch.tensor(1 / training.loop.gradient_accumulation, device=context.device),
        parameters=[p for p in model.parameters() if p.requires_grad],
        fingerprint=fingerprint,
    )  # fmt: skip
    # From here on each rank draws its own numbers: with the same ones, dropout would mask the same units on all ranks.
    seed_everything(training.loop.seed, context.rank, 0)
    return setup


def feed(context: Context, data: Prepared, outputs: int) -> tuple[Sampler | StreamOrder, Loader | StreamLoader, int]:
    """Return the order of the data, what makes its batches, and the number of steps of the run."""
    training = context.job.spec.training
    seed, micro_batches = training.loop.seed, training.loop.gradient_accumulation
    rank, world_size = context.rank, context.world_size
    workers = Workers.of(training.data.loading, data.rows, context.device)
    if isinstance(data.rows, IterableRows):
        order, stream = stream_loader(
            data, data.rows, seed=seed, batch_size=training.data.batch_size, micro_batches=micro_batches,
            rank=rank, world_size=world_size, workers=workers,
        )  # fmt: skip
        return order, stream, steps_of(training.loop.duration, order.steps_per_epoch)
    sampler = Sampler(data.train, training.data.batch_size, seed, data.train_classes, data.lengths, data.draw_weights)
    total_steps = steps_of(training.loop.duration, sampler.steps_per_epoch)
    loader = Loader(
        data, sampler, total_steps, seed=seed, micro_batches=micro_batches, rank=rank, world_size=world_size,
        workers=workers, mix=Mix.of(training.data, outputs),
    )  # fmt: skip
    return sampler, loader, total_steps


def synchronize_batch_norm(model: nn.Module, device: torch.device, label: str) -> nn.Module:
    """Return the model with SyncBatchNorm in place of its batch norm layers; weights and buffers are the same tensors.

    Raises:
        ConfigurationError: The device is a CPU, which PyTorch's SyncBatchNorm rejects, or there is no such layer.
    """
    # Validation has rejected a job without GPUs. Here it is a laptop without the GPUs that the job asks for.
    if device.type == "cpu":
        raise ConfigurationError(
            "distributed.syncBatchNorm requires GPUs, but this worker trains on the CPU; "
            "train with one worker (on a laptop: --workers 1) or set it to false"
        )
    # the packaged model is built without this: both kinds of layers have the same weights and evaluate alike
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise ConfigurationError(
            f"distributed.syncBatchNorm: model {label} has no batch norm layer (torch.nn.BatchNorm1d, 2d or 3d); "
            "remove it"
        )
    return model


def _require_tensors(model: nn.Module, label: str) -> None:
    others = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if others:
        raise ConfigurationError(
            f"model {label}: {', '.join(others[:3])} in its state_dict isn't a tensor and can't be saved; "
            "remove get_extra_state"
        )


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
        raise ConfigurationError("run.resumeFrom: that run used a different optimizer; use its optimizer.name")


def on_rank_0(context: Context, call: Callable[[], T]) -> T | None:
    """Return what a call returns on rank 0, None on the others; its TrainingError is raised on every rank.

    The others would otherwise wait in the next collective until they notice that rank 0 is gone.
    """
    if context.world_size == 1:
        return call()
    found: T | None = None
    failure: list[TrainingError | None] = [None]
    if context.rank == 0:
        try:
            found = call()
        except TrainingError as error:
            failure = [error]
    dist.broadcast_object_list(failure, src=0)
    if failure[0] is not None:
        raise failure[0]
    return found


def share_state(context: Context, state: State | None) -> State | None:
    """Broadcast rank 0's state to every rank, so that storage is read once."""
    if context.world_size == 1:
        return state
    box = [state]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_ranks(setup: Setup) -> list[RankState]:
    """Return on rank 0 the state in which the ranks differ; an empty list on the others."""
    context = setup.context
    # Weights and optimizer state are the same on all ranks, so these few kilobytes are all that rank 0 doesn't have.
    mine: RankState = {"rng": get_rng(context.device), "lossSum": float(setup.loss_sum)}
    if isinstance(setup.loader, StreamLoader):
        mine["stream"] = setup.loader.state()
    if context.world_size == 1:
        return [mine]
    gathered: list[Any] = [None] * context.world_size if context.rank == 0 else []
    dist.gather_object(mine, gathered if context.rank == 0 else None, dst=0)
    return gathered


def share_weights(setup: Setup) -> None:
    """Broadcast the weights and buffers of rank 0's model."""
    if setup.context.world_size > 1:
        for tensor in setup.model.state_dict().values():
            dist.broadcast(tensor, src=0)


def share_buffers(setup: Setup) -> None:
    """Broadcast rank 0's buffers, which are those that are saved: what is evaluated is what is kept.

    DDP has broadcast them before the last forward, but that forward has changed them: each rank's batch norm has seen
    its own rows.
    """
    if setup.context.world_size > 1:
        for buffer in setup.buffers():
            dist.broadcast(buffer, src=0)
