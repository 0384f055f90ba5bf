"""The training loop. Everything that happens in a step is in `train_step`; everything between steps is in `fit`."""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from trainmaster_api.messages import Outcome

from trainmaster_trainer.checkpoint.state import State, get_rng, set_rng
from trainmaster_trainer.context import Context, ReportKind, Result, Verdict
from trainmaster_trainer.errors import NonFiniteLoss

from . import exactness
from .builder import Setup, build, gather_ranks, on_rank_0, share_buffers, share_state
from .control_point import ControlPoint
from .evaluate import evaluate
from .finish import finish
from .optim import LARGEST, set_lr, step_unless_bad
from .parts import states_of
from .recorder import Recorder
from .schedule import steps_of


def fit(context: Context) -> Result:
    """Train a job on this rank, from its newest checkpoint if it has one, to its end or to a stop.

    Args:
        context: The interface to the runtime. With more than one rank the process group must be initialized.

    Returns:
        Complete with the test metrics and the model's address, or Stopped with the checkpoint to resume from. The
        same on every rank, except that checkpoint and model address are on rank 0 only.

    Raises:
        TrainingError: With the failure class and a message for the user.
    """
    # Every rank builds everything from the spec alone, so nothing but a checkpoint has to be sent between them.
    setup = build(context)
    with contextlib.closing(setup.loader), Recorder(setup) as recorder, collector_between_steps():
        begin(setup, recorder)
        control_point = ControlPoint(context, setup.step)
        recorder.control_point = control_point
        validate_every = steps_of(setup.spec.training.loop.validate_every, setup.sampler.steps_per_epoch)

        while setup.step < setup.last_step and not setup.stopped_early:
            save_due = False
            # -- control point: the only place where the loop looks at the clock, at signals or at storage
            if setup.step >= control_point.next_step:
                decision = control_point.exchange(setup.step, recorder.wants_save())
                # Reading the flag waits for the device, so it is done here and not in each step; and before anything
                # is saved or reported, so that no checkpoint and no report has a step after the first bad one.
                raise_if_bad(setup)
                recorder.look()
                recorder.report(ReportKind.STEP)
                if decision.stop:
                    # Every rank takes part, because each has its own RNG state; then all leave at the same step.
                    recorder.save(gather_ranks(setup), {}, wait=True)
                    return recorder.result(Outcome.STOPPED)
                # Saved below, where saves by step count are: if both are due it is one save, with the step's metrics.
                save_due = decision.save
                gc.collect()

            train_step(setup)
            if setup.step == control_point.first_step + 1:
                gc.freeze()  # nothing allocated so far is garbage; leaving it out makes later collections cheap
                recorder.report(ReportKind.FIRST_STEP)

            metrics = measure(setup, recorder, validate_every)
            if metrics and is_pruned(setup, recorder, validate_every):
                return recorder.result(Outcome.STOPPED)
            if save_due or recorder.save_due():
                raise_if_bad(setup)
                recorder.save(gather_ranks(setup), metrics)

        if setup.step < setup.total_steps and not setup.stopped_early:
            return pause(setup, recorder)
        return finish(setup, recorder)


def begin(setup: Setup, recorder: Recorder) -> None:
    """Bring every rank to where the run trains from, and report what it has to work with."""
    context = setup.context
    # Only rank 0 uses the run's storage: it claims the run (fencing) and reads the checkpoint once, however many
    # ranks there are. The others wait in the broadcast, so no rank trains before the run is claimed.
    state = share_state(context, on_rank_0(context, recorder.resume))
    if state is not None:
        setup.restore(state)
    if about := setup.data.about():  # nothing is trained on before this is said
        recorder.report(ReportKind.DATA, message=about)
    warm_up(setup)
    # a run that resumes has been checked
    checked = exactness.require(setup, train_step, warm_up) if setup.is_own and is_new(context, state) else []
    recorder.report(ReportKind.LOADED)
    for sentence in (*checked, *setup.data.warnings):
        recorder.report(ReportKind.WARNING, message=sentence)


def is_new(context: Context, state: State | None) -> bool:
    """Return whether a run begins, be it with the weights of another one; a trial's next round is no new run."""
    return (state is None or state.is_foreign) and context.origin is None


def pause(setup: Setup, recorder: Recorder) -> Result:
    """Return that a round of the trial's population is over, once everything is stored."""
    if setup.context.rank == 0:
        recorder.wait()
        recorder.flush()
    return recorder.result(Outcome.STOPPED).model_copy(update={"is_paused": True})


@contextlib.contextmanager
def collector_between_steps() -> Iterator[None]:
    """Restrict Python's garbage collector to control points, because it would delay steps at random."""
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def train_step(setup: Setup) -> None:
    """Make one optimizer step.

    Nothing in here waits for the device: the loss stays there, and a step with non-finite gradients, like every later
    step, is skipped on the device by the optimizer's own kernel and detected at the next control point.
    """
    loop = setup.spec.training.loop
    for index, batch in enumerate(setup.loader.step(setup.step)):
        with no_sync(setup, until_last=index < loop.gradient_accumulation - 1), autocast(setup):
            setup.accumulator.backward(setup.task.loss_of(setup.replica, batch))
    setup.accumulator.finish(setup.parameters)

    # DDP has averaged the gradients over the ranks, so every rank sees the same norm and takes the same decision
    # without communicating. The norm is computed even without clipping, because it shows a non-finite gradient: one
    # infinity or NaN in any gradient makes the norm non-finite.
    norm = setup.grad_norm = get_total_norm([p.grad for p in setup.parameters if p.grad is not None])
    if loop.clip_norm is not None:
        clip_grads_with_norm_(setup.parameters, loop.clip_norm, norm)
    # Counts on from the first bad step, so one read at a control point gives both whether and which step it was. `<=`
    # and `not`, because a comparison with NaN is false.
    setup.bad_steps += (norm <= LARGEST).logical_not() | (setup.bad_steps > 0)

    set_lr(setup.optimizer, *setup.lrs())  # a function of the step: there is no scheduler object whose state to resume
    step_unless_bad(setup.optimizer, setup.bad_steps)
    for parameter in setup.parameters:
        parameter.grad = None  # the next backward writes instead of adding, and nothing has to be zeroed
    setup.loss_steps += 1
    setup.step += 1


def no_sync(setup: Setup, *, until_last: bool) -> contextlib.AbstractContextManager[None]:
    """Reduce gradients over the ranks once per step, in the last micro-batch."""
    if until_last and isinstance(setup.replica, DistributedDataParallel):
        return setup.replica.no_sync()
    return contextlib.nullcontext()


def autocast(setup: Setup) -> contextlib.AbstractContextManager[object]:
    """Return the precision context: bf16 if requested, which has fp32's range and so needs no loss scaling."""
    if setup.spec.training.loop.precision == "bf16":
        return torch.autocast(setup.context.device.type, torch.bfloat16)
    return contextlib.nullcontext()


def warm_up(setup: Setup) -> None:
    """Run forward and backward of one batch and discard the result.

    A shape mismatch is reported here and not after minutes; and DDP arranges its buckets now, so the first step after
    a resume accumulates gradients in the same order as an uninterrupted run. Floating-point addition isn't associative,
    so a bit-identical resume depends on this.
    """
    batch = setup.loader.first(setup.step)
    with unseen(setup):
        for _ in range(2 if setup.context.world_size > 1 else 1):  # DDP rebuilds its buckets in the second pass
            with autocast(setup):
                loss = setup.task.checked_loss(setup.replica, setup.model, batch, setup.label)
            (loss if isinstance(loss, torch.Tensor) else loss[0]).backward()  # type: ignore[no-untyped-call]
            setup.optimizer.zero_grad(set_to_none=True)


@contextlib.contextmanager
def unseen(setup: Setup) -> Iterator[None]:
    """Undo the side effects of a forward other than gradients: draws of dropout, statistics of batch norm."""
    # The warm-up must not be visible in the run: an uninterrupted run has one, a resumed one has two.
    loss = setup.task.module
    buffers = [(b, b.clone()) for module in (setup.model, loss) if module is not None for b in module.buffers()]
    states = copy.deepcopy(states_of(setup.task))  # a loss may change them
    drawn = get_rng(setup.context.device)
    yield
    for name, state in states.items():
        setup.task.states[name].load_state_dict(state)
    set_rng(drawn, setup.context.device)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def measure(setup: Setup, recorder: Recorder, validate_every: int) -> dict[str, float]:
    """Log the metrics that are due at this step; return those of the validation, empty if none is due."""
    is_validated = setup.step % validate_every == 0 or setup.step == setup.total_steps
    if is_validated or setup.step % recorder.log_every == 0:
        raise_if_bad(setup)  # no extra cost: reading the loss waits for the device anyway
        recorder.log(train_metrics(setup))
    if not is_validated:
        return {}
    metrics = validate(setup)
    recorder.log(metrics, ReportKind.VALIDATION)
    # Every rank has the same metrics, so all enter the collective in gather_ranks or none does. A decision that rank 0
    # took alone would make it hang there.
    if recorder.is_best(metrics):
        recorder.keep(gather_ranks(setup), metrics)
    return metrics


def is_pruned(setup: Setup, recorder: Recorder, validate_every: int) -> bool:
    """Ask what becomes of this trial of a search, if it is one; the same on every rank.

    Before anything of this step is saved: so no checkpoint is ahead of what the search knows.
    """
    context = setup.context
    if context.gate is None and not context.is_trial:
        return False
    stops = torch.zeros(1, device=context.device)
    if context.rank == 0 and context.gate is not None:
        times = -(-setup.step // validate_every)
        stops += context.gate(recorder.seen(ReportKind.VALIDATION), times) is Verdict.STOP
    if context.world_size > 1:
        dist.broadcast(stops, 0)
    return bool(stops.item())


def validate(setup: Setup) -> dict[str, float]:
    """Return metrics of the validation split, and pass them to early stopping and schedule; the same on all ranks."""
    context = setup.context
    share_buffers(setup)  # each rank evaluates a part of the split, so all must evaluate the same model
    with autocast(setup):
        found = evaluate(
            setup.model,
            setup.loader,
            setup.data.validation,
            setup.task,
            rank=context.rank,
            world_size=context.world_size,
        )
    metrics = {f"val/{name}": value for name, value in found.items()}
    # no broadcast needed: the metrics are merged over the ranks, so each rank comes to the same decision
    if setup.early is not None and setup.early.update(metrics):
        setup.stopped_early = True
    setup.schedule.validated(metrics)
    return metrics


def train_metrics(setup: Setup) -> dict[str, float]:
    """Return the training metrics: mean loss since the last log line, and this step's learning rate and norm."""
    return {
        "train/loss": mean_train_loss(setup),
        "train/lr": setup.lr(),
        "train/grad_norm": float(setup.grad_norm),  # before clipping: it shows whether clipNorm clips
    }


def mean_train_loss(setup: Setup) -> float:
    """Return the mean loss of the steps since the last call, over all ranks; read on the host."""
    total = setup.loss_sum * setup.share / setup.loss_steps
    if setup.context.world_size > 1:
        dist.all_reduce(total)
    setup.loss_sum.zero_()
    setup.loss_steps = 0
    return float(total) / setup.context.world_size


def raise_if_bad(setup: Setup) -> None:
    """Raise NonFiniteLoss if the device has flagged a step; the weights are still those before the first such step."""
    bad_steps = int(setup.bad_steps)
    if bad_steps:
        lr = setup.spec.training.optimizer.lr
        raise NonFiniteLoss(
            f"the gradients of step {setup.step - bad_steps + 1} are not finite; lower optimizer.lr (now {lr:g}) "
            "or set loop.clipNorm"
        )
