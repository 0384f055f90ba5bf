"""The training loop. Everything that happens in a step is in `train_step`; everything between steps is in `fit`."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from trainmaster_api.messages import Outcome
from trainmaster_api.spec.schedule import PlateauArgs

from trainmaster_trainer.context import Context, ReportKind, Result
from trainmaster_trainer.errors import NonFiniteLoss

from .builder import Setup, build, gather_ranks, share_state
from .control_point import Pulse
from .evaluate import evaluate
from .finish import finish
from .optim import clip_, set_lr, total_norm
from .recorder import Recorder
from .schedule import steps_of

LARGEST = torch.finfo(torch.float32).max  # neither infinity nor NaN is at most this


def fit(context: Context) -> Result:
    """Train a job on this rank, from its newest checkpoint if it has one, to its end or to a stop.

    Args:
        context: What the runtime gives. The process group is up when there is more than one rank.

    Returns:
        Complete with the test metrics and the model's address, or Stopped with the checkpoint to go on from. The
        same on every rank, but checkpoint and model address are on rank 0 only.

    Raises:
        TrainingError: With the class of the failure and a sentence for the user.
    """
    setup = build(context)
    with Recorder(setup) as recorder, collector_between_steps():
        state = share_state(context, recorder.resume() if context.rank == 0 else None)
        if state is not None:
            setup.restore(state)
        warm_up(setup)
        recorder.report(ReportKind.LOADED)
        pulse = Pulse(context, setup.step)
        recorder.pulse = pulse
        validate_every = steps_of(setup.spec.training.loop.validate_every, setup.cursor.steps_per_epoch)

        while setup.step < setup.total_steps and not setup.stopped_early:
            save_due = False
            if setup.step >= pulse.next_step:
                decision = pulse.exchange(setup.step, recorder.wants_save())
                raise_if_bad(setup)
                recorder.report(ReportKind.STEP)
                if decision.stop:
                    recorder.save(gather_ranks(setup), {}, wait=True)
                    return recorder.result(Outcome.STOPPED)
                save_due = decision.save
                gc.collect()

            train_step(setup)
            if setup.step == pulse.first_step + 1:
                gc.freeze()  # nothing made so far is garbage, and not looking at it again makes a collection cheap
                recorder.report(ReportKind.FIRST_STEP)

            metrics: dict[str, float] = {}
            is_validated = setup.step % validate_every == 0 or setup.step == setup.total_steps
            if is_validated or setup.step % recorder.log_every == 0:
                raise_if_bad(setup)  # the loss is read here anyway
                recorder.log({"train/loss": mean_train_loss(setup), "train/lr": setup.lr()})
            if is_validated:
                metrics = validate(setup)
                recorder.log(metrics, ReportKind.VALIDATION)
                if recorder.is_best(metrics):
                    recorder.keep(gather_ranks(setup), metrics)
            if save_due or recorder.save_due():
                raise_if_bad(setup)
                recorder.save(gather_ranks(setup), metrics)

        return finish(setup, recorder)


@contextlib.contextmanager
def collector_between_steps() -> Iterator[None]:
    """Python's garbage collector runs at control points and never in a step, which it would hold up at random."""
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def train_step(setup: Setup) -> None:
    """One optimizer step.

    Nothing in here waits for the device: the loss stays there, and a step with non-finite gradients, like every step
    after it, is skipped there by the optimizer's own kernel and found out at the next control point.
    """
    context, loop = setup.context, setup.spec.training.loop
    micro_batches = loop.gradient_accumulation
    rows = setup.cursor.indices(setup.step, context.rank, context.world_size)
    size = len(rows) // micro_batches

    for index in range(micro_batches):
        x, y = setup.data.batch(rows[index * size : (index + 1) * size])
        with no_sync(setup, until_last=index < micro_batches - 1), autocast(setup):
            loss = setup.task.loss(setup.replica(x), y)
            # every micro-batch has the same size, so the mean of means is the mean of the big batch
            loss.backward(setup.share)  # type: ignore[no-untyped-call]
        setup.loss_sum += loss.detach()

    # DDP has averaged the gradients over the ranks, so all of them see the same norm and take the same decision
    gradients = [p.grad for p in setup.parameters if p.grad is not None]
    norm = total_norm(gradients)
    if loop.clip_norm is not None:
        clip_(gradients, norm, loop.clip_norm)
    setup.bad_steps += (norm <= LARGEST).logical_not() | (setup.bad_steps > 0)

    set_lr(setup.optimizer, setup.lr())
    setup.optimizer.found_inf = setup.bad_steps.clamp(max=1)  # type: ignore[attr-defined]  # GradScaler's flag
    setup.optimizer.step()
    for parameter in setup.parameters:
        parameter.grad = None
    setup.loss_steps += 1
    setup.step += 1


def no_sync(setup: Setup, *, until_last: bool) -> contextlib.AbstractContextManager[None]:
    """Reduce gradients over the ranks once per step, in the last micro-batch."""
    if until_last and isinstance(setup.replica, DistributedDataParallel):
        return setup.replica.no_sync()
    return contextlib.nullcontext()


def autocast(setup: Setup) -> contextlib.AbstractContextManager[object]:
    """bf16 arithmetic where asked; bf16 has fp32's range, so no loss scaling is needed."""
    if setup.spec.training.loop.precision == "bf16":
        return torch.autocast(setup.context.device.type, torch.bfloat16)
    return contextlib.nullcontext()


def warm_up(setup: Setup) -> None:
    """Forward and backward of one batch, thrown away.

    A shape that doesn't fit shows here and not after the first validation; and DDP arranges its buckets now, so the
    first step after a resume adds up gradients in the order in which an undisturbed run does.
    """
    rows = setup.cursor.indices(setup.step, setup.context.rank, setup.context.world_size)
    x, y = setup.data.batch(rows[: len(rows) // setup.spec.training.loop.gradient_accumulation])
    device = setup.context.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # dropout draws here and must not be seen
        for _ in range(2 if setup.context.world_size > 1 else 1):  # DDP rebuilds its buckets in the second pass
            with autocast(setup):
                setup.task.loss(setup.replica(x), y).backward()  # type: ignore[no-untyped-call]
            setup.optimizer.zero_grad(set_to_none=True)


def validate(setup: Setup) -> dict[str, float]:
    """Metrics of the validation split, and what early stopping and plateau make of them; the same on every rank."""
    context = setup.context
    with autocast(setup):
        found = evaluate(
            setup.model, setup.data, setup.data.validation, setup.task, rank=context.rank, world_size=context.world_size
        )
    metrics = {f"val/{name}": value for name, value in found.items()}
    if setup.early is not None and setup.early.update(metrics):
        setup.stopped_early = True
    if setup.plateau is not None and setup.plateau.update(metrics):
        schedule = setup.spec.training.schedule
        setup.lr_scale = max(setup.lr_scale * schedule.typed_args(PlateauArgs).factor, schedule.min_lr_ratio)
    return metrics


def mean_train_loss(setup: Setup) -> float:
    """Mean loss of the steps since the last call, over all ranks; read on the host."""
    total = setup.loss_sum * setup.share / setup.loss_steps
    if setup.context.world_size > 1:
        dist.all_reduce(total)
    setup.loss_sum.zero_()
    setup.loss_steps = 0
    return float(total) / setup.context.world_size


def raise_if_bad(setup: Setup) -> None:
    """Read the device's flag. The weights are those before the first bad step, because none was made since."""
    bad_steps = int(setup.bad_steps)
    if bad_steps:
        lr = setup.spec.training.optimizer.lr
        raise NonFiniteLoss(
            f"the gradients of step {setup.step - bad_steps + 1} are not finite; lower optimizer.lr (now {lr:g}) "
            "or set loop.clipNorm"
        )
