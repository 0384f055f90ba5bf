"""What a run records: reports, metrics.jsonl, checkpoints. Only rank 0 writes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from types import TracebackType

from trainmaster_api.layout import SPEC
from trainmaster_api.messages import CheckpointRef, Outcome, Resume

from trainmaster_trainer.checkpoint.interval import Interval
from trainmaster_trainer.checkpoint.manager import CheckpointManager, Policy, Slow, Snapshot, newest_of
from trainmaster_trainer.checkpoint.protocol import check_fence
from trainmaster_trainer.checkpoint.state import RankState, State
from trainmaster_trainer.context import Report, ReportKind, Result
from trainmaster_trainer.data import identity
from trainmaster_trainer.errors import Fenced, StorageDenied, StorageUnavailable, TrainingError
from trainmaster_trainer.storage.metrics_file import MetricsLog
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.storage.waiting import waiting

from .builder import Setup
from .control_point import ControlPoint

MOST_LOGGED = 400  # lines of train/loss over a run, in addition to one per validation


class Recorder:
    """Reports, metrics and checkpoints of one rank; on other ranks than 0 it only decides what all must do together."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.context = setup, setup.context
        spec = setup.spec.checkpoint
        self.control_point: ControlPoint | None = None
        self.log_every = max(1, setup.total_steps // MOST_LOGGED)
        self._interval = Interval(spec.every)
        self._told_slow: Slow | None = None
        self._metrics: dict[str, float] = {}
        self._log = MetricsLog(self.context.run)
        self._last_save = time.monotonic()
        self._policy = Policy(spec.keep, spec.keep_best, setup.task.objective(spec.metric, "checkpoint.metric"))
        self.manager = CheckpointManager(
            self.context.run, self.context.run_uri, self.context.attempt, self.context.world_size, self._policy,
            before_save=self.flush, on_commit=self._committed,
        )  # fmt: skip

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.manager.close()
        # The metrics up to a failure (a loss that climbs to NaN) are what its reader needs, so they are flushed even
        # then; but not if this attempt is fenced, or if storage is what failed.
        is_ours = error is not None and not isinstance(error, Fenced | StorageUnavailable | StorageDenied)
        if is_ours and self.context.rank == 0:
            with contextlib.suppress(TrainingError):
                self.flush()

    # -- resume -------------------------------------------------------------------------------------------------
    def resume(self) -> State | None:
        """Claim the run, write spec.json and return the state to resume from; on rank 0 only.

        Raises:
            DataChanged: The data is not that which the run began with.
        """
        run, job = self.context.run, self.context.job
        run.check()
        state = self.manager.resume(lambda text: self.report(ReportKind.WARNING, message=text))
        if self.setup.fingerprint is not None:
            unknown = identity.settle(run, self.setup.fingerprint, is_resumed=state is not None)
            if unknown:
                self.report(ReportKind.WARNING, message=unknown)
        asked = json.dumps(job.wire(), indent=1).encode()
        if run.get(SPEC) != asked:  # mutable fields have changed: loop.duration, the cluster
            run.put(SPEC, asked)
        segment, origin = self.context.segment, self.context.origin
        if state is None and segment is not None and origin is not None:
            state = newest_of(origin)
            state.is_foreign = segment.is_other
        # Only for a new run: once it has a checkpoint of its own, that one is newer than the run it started from.
        if state is None and job.spec.run.resume_from is not None:
            storage = job.spec.storage
            state = newest_of(open_store(job.spec.run.resume_from, storage.endpoint, storage.region, os.environ))
        step = int(state.loop["step"]) if state else 0
        # metrics.jsonl is cut back to the checkpoint's step, because the steps after it are repeated. Its last values
        # are reported until the next validation, which may be an hour away.
        self._metrics |= self._log.resume(step)
        self.report(
            ReportKind.RESUMED,
            step=step,
            checkpoint=self.manager.latest,
            fingerprint=self.setup.fingerprint.short if self.setup.fingerprint else "",
            resume=self.setup.resume,
        )
        return state

    # -- reports ------------------------------------------------------------------------------------------------
    def report(
        self,
        kind: ReportKind,
        *,
        step: int | None = None,
        checkpoint: CheckpointRef | None = None,
        message: str = "",
        fingerprint: str = "",
        resume: Resume | None = None,
    ) -> None:
        """Report to the runtime; on rank 0 only."""
        if self.context.rank == 0:
            news = {"checkpoint": checkpoint, "message": message, "fingerprint": fingerprint, "resume": resume}
            self.context.report(self.seen(kind, step).model_copy(update=news))

    def seen(self, kind: ReportKind, step: int | None = None) -> Report:
        """Return a report of where the run is."""
        setup = self.setup
        at = setup.step if step is None else step
        total = at if setup.stopped_early else setup.total_steps
        eta = self.control_point.eta_seconds(at, total) if self.control_point else None
        epoch = setup.sampler.epoch(max(0, at - 1))
        return Report(
            kind=kind, step=at, total_steps=total, epoch=epoch, eta_seconds=eta, metrics=dict(self._metrics)
        )  # fmt: skip

    def log(self, metrics: dict[str, float], kind: ReportKind = ReportKind.STEP) -> None:
        """Add metrics of this step to metrics.jsonl, and report validations."""
        self._metrics.update(metrics)
        if self.context.rank == 0:
            setup = self.setup
            self._log.add(setup.step, setup.sampler.epoch(setup.step - 1), metrics)
        if kind is ReportKind.VALIDATION:
            self.report(kind)

    # -- checkpoints --------------------------------------------------------------------------------------------
    def wants_save(self) -> bool:
        """Return whether a checkpoint is due by the clock (`auto`, `10m`); counts on rank 0 only.

        Clocks of ranks differ, so rank 0's answer becomes the decision of all of them at the control point.
        """
        # The measured duration of a save is its cost: on another thread it still takes a core and storage bandwidth.
        seconds = self._interval.seconds(self.manager.last_save_seconds)
        # Not while a save is in flight: slow storage should get fewer checkpoints rather than a queue of them.
        return time.monotonic() - self._last_save >= seconds and self.manager.is_idle

    def save_due(self) -> bool:
        """Return whether this step is due by the count of steps, or is the last one; the same on every rank."""
        setup = self.setup
        steps = self._interval.steps or self._interval.epochs * setup.sampler.steps_per_epoch
        is_due = steps > 0 and setup.step % steps == 0
        return is_due or setup.step == setup.last_step or setup.stopped_early

    def is_best(self, metrics: dict[str, float]) -> bool:
        """Return whether this validation is the best so far; the same on every rank."""
        objective, setup = self._policy.objective, self.setup
        value = metrics.get(objective.metric)
        if value is None or not math.isfinite(value) or self._policy.keep_best == 0:
            return False
        if not objective.is_better(value, setup.best):
            return False
        setup.best = value
        return True

    def keep(self, ranks: list[RankState], metrics: dict[str, float]) -> None:
        """Copy this step's state as the best so far; it is written with the next checkpoint."""
        if self.context.rank == 0:
            self.manager.keep(self._snapshot(ranks, metrics))

    def save(self, ranks: list[RankState], metrics: dict[str, float], *, wait: bool = False) -> None:
        """Save this step, and before it the best so far; every rank calls it, rank 0 writes.

        Without `wait` it returns once the copy is made, even if storage hangs: see `CheckpointManager`.
        """
        if self.context.rank != 0:
            return
        self.manager.save(self.manager.kept(self.setup.step) or self._snapshot(ranks, metrics))
        self._last_save = time.monotonic()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until everything is written; on rank 0 only."""
        self.manager.wait(self.look)

    def look(self) -> None:
        """Raise the error of a failed save, and warn when storage doesn't respond; rank 0, about twice a second."""
        if self.context.rank != 0:
            return
        self.manager.poll()
        slow = self.manager.slow
        if slow == self._told_slow:  # once per save: each change is a write of the job's status
            return
        self._told_slow = slow
        note = ""
        if slow:
            call = waiting()
            because = f" ({call.reason})" if call and call.reason else ""
            note = f"storage has not accepted the checkpoint of step {slow.step} since {slow.since}{because}"
            self.report(ReportKind.WARNING, message=f"{note}; training continues, and the newest state is saved next")
        self.report(ReportKind.WAITING, message=note)

    def _snapshot(self, ranks: list[RankState], metrics: dict[str, float]) -> Snapshot:
        setup = self.setup
        state = State.capture(setup.model, setup.optimizer, ranks, setup.loop_state(), setup.parts_state())
        return Snapshot(setup.step, state, {name: v for name, v in metrics.items() if math.isfinite(v)})

    def flush(self) -> None:
        """Write metrics.jsonl, unless a newer attempt has claimed the run."""
        # metrics.jsonl is one file for all attempts, so a stale attempt would overwrite the lines of its successor.
        check_fence(self.context.run, self.context.attempt)
        self._log.flush()

    def _committed(self, checkpoint: CheckpointRef) -> None:
        self.report(ReportKind.CHECKPOINT, step=checkpoint.step, checkpoint=checkpoint)

    def result(self, outcome: Outcome, test_metrics: dict[str, float] | None = None, model_uri: str = "") -> Result:
        """Return the result of this rank."""
        setup = self.setup
        total = setup.step if setup.stopped_early else setup.total_steps
        return Result(
            outcome=outcome,
            step=setup.step,
            total_steps=total,
            checkpoint=self.manager.latest,
            test_metrics=test_metrics or {},
            model_uri=model_uri,
        )
