"""What a run leaves behind while it goes: reports, metrics.jsonl, checkpoints. Only rank 0 writes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from types import TracebackType

from trainmaster_api.layout import SPEC
from trainmaster_api.messages import CheckpointRef, Outcome
from trainmaster_api.types import interval_seconds, parse_count

from trainmaster_trainer.checkpoint import CheckpointManager, Policy, Snapshot, State
from trainmaster_trainer.checkpoint.manager import newest_of
from trainmaster_trainer.checkpoint.protocol import check_fence
from trainmaster_trainer.checkpoint.state import RankState
from trainmaster_trainer.context import Report, ReportKind, Result
from trainmaster_trainer.errors import Fenced, StorageDenied, StorageUnavailable, TrainingError
from trainmaster_trainer.storage.metrics_file import MetricsLog
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tasks.metrics import higher_is_better

from .builder import Setup
from .control_point import Pulse

MOST_LOGGED = 400  # lines of train/loss over a run, besides one per validation
AUTO_COST = 0.01  # share of the time that automatic checkpoints may take
AUTO_BOUNDS = (5.0, 900.0)  # seconds between automatic checkpoints


class Recorder:
    """Reports, metrics and checkpoints of one rank; on other ranks than 0 it only decides what all must do together."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.context = setup, setup.context
        spec = setup.spec.checkpoint
        self.pulse: Pulse | None = None
        self.log_every = max(1, setup.total_steps // MOST_LOGGED)
        self._best: Snapshot | None = None
        self._metrics: dict[str, float] = {}
        self._log = MetricsLog(self.context.run)
        self._last_save = time.monotonic()
        self._policy = Policy(spec.keep, spec.keep_best, spec.metric)
        self.manager = CheckpointManager(
            self.context.run, self.context.run_uri, self.context.attempt, self.context.world_size, self._policy,
            self._committed,
        )  # fmt: skip

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.manager.close()
        is_ours = error is not None and not isinstance(error, Fenced | StorageUnavailable | StorageDenied)
        if is_ours and self.context.rank == 0:  # the way to a failure is what its reader looks for
            with contextlib.suppress(TrainingError):
                self.flush()

    # -- resume -------------------------------------------------------------------------------------------------
    def resume(self) -> State | None:
        """Rank 0: claim the run, write spec.json once, find the state to go on from."""
        run, job = self.context.run, self.context.job
        run.check()
        state = self.manager.resume(lambda text: self.report(ReportKind.WARNING, message=text))
        if run.get(SPEC) is None:
            run.put(SPEC, json.dumps(job.wire(), indent=1).encode())
        if state is None and job.spec.run.resume_from is not None:
            storage = job.spec.storage
            state = newest_of(open_store(job.spec.run.resume_from, storage.endpoint, storage.region, os.environ))
        step = int(state.loop["step"]) if state else 0
        self._metrics |= self._log.resume(step)  # known until the next validation, which may be an hour away
        self.report(ReportKind.RESUMED, step=step, checkpoint=self.manager.latest)
        return state

    # -- reports ------------------------------------------------------------------------------------------------
    def report(
        self, kind: ReportKind, *, step: int | None = None, checkpoint: CheckpointRef | None = None, message: str = ""
    ) -> None:
        """Tell the runtime; on rank 0 only."""
        if self.context.rank != 0:
            return
        setup = self.setup
        at = setup.step if step is None else step
        total = at if setup.stopped_early else setup.total_steps
        eta = self.pulse.eta_seconds(at, total) if self.pulse else None
        epoch = max(0, at - 1) // setup.cursor.steps_per_epoch
        self.context.report(
            Report(
                kind=kind,
                step=at,
                total_steps=total,
                epoch=epoch,
                eta_seconds=eta,
                metrics=dict(self._metrics),
                checkpoint=checkpoint,
                message=message,
            )
        )

    def log(self, metrics: dict[str, float], kind: ReportKind = ReportKind.STEP) -> None:
        """Add metrics of this step to metrics.jsonl, and report validations."""
        self._metrics.update(metrics)
        if self.context.rank == 0:
            setup = self.setup
            self._log.add(setup.step, (setup.step - 1) // setup.cursor.steps_per_epoch, metrics)
        if kind is ReportKind.VALIDATION:
            self.report(kind)

    # -- checkpoints --------------------------------------------------------------------------------------------
    def wants_save(self) -> bool:
        """Rank 0: whether the clock asks for a checkpoint (`auto`, `10m`)."""
        every = self.setup.spec.checkpoint.every
        if every == "auto":
            # cost as the loop feels it: a save on another thread still takes a core and the store
            cost = self.manager.last_save_seconds / AUTO_COST
            seconds = min(max(cost, AUTO_BOUNDS[0]), AUTO_BOUNDS[1])
        else:
            seconds = float(interval_seconds(every) or "inf")
        return time.monotonic() - self._last_save >= seconds and self.manager.is_idle

    def save_due(self) -> bool:
        """Whether this step is due by the count of steps, or is the last one; the same on every rank."""
        setup = self.setup
        every = setup.spec.checkpoint.every
        number, unit = (0, "") if every == "auto" else parse_count(every)
        steps = {"step": number, "ep": number * setup.cursor.steps_per_epoch}.get(unit, 0)
        is_due = steps > 0 and setup.step % steps == 0
        return is_due or setup.step == setup.total_steps or setup.stopped_early

    def is_best(self, metrics: dict[str, float]) -> bool:
        """Whether this validation is the best so far; the same on every rank."""
        value, setup = metrics.get(self._policy.metric), self.setup
        if value is None or not math.isfinite(value) or self._policy.keep_best == 0:
            return False
        sign = 1 if higher_is_better(self._policy.metric) else -1
        if setup.best is not None and sign * (value - setup.best) <= 0:
            return False
        setup.best = value
        return True

    def keep(self, ranks: list[RankState], metrics: dict[str, float]) -> None:
        """Copy this step as the best so far; it is written with the next checkpoint.

        Early in a run nearly every validation is the best so far, and writing each would cost more than training.
        Nothing is lost: a resume goes back to a checkpoint, and with it the best up to there was written.
        """
        if self.context.rank == 0:
            self._best = self._snapshot(ranks, metrics)

    def save(self, ranks: list[RankState], metrics: dict[str, float], *, wait: bool = False) -> None:
        """Save this step, and before it the best so far; every rank calls it, rank 0 writes.

        Waits for a save that is still in flight: a copy of the state is in memory for each.
        """
        if self.context.rank != 0:
            return
        best, self._best = self._best, None
        older = [best] if best is not None and best.step < self.setup.step else []
        self.manager.save([*older, self._snapshot(ranks, metrics)], also=self.flush)
        self._last_save = time.monotonic()
        if wait:
            self.manager.wait()

    def _snapshot(self, ranks: list[RankState], metrics: dict[str, float]) -> Snapshot:
        setup = self.setup
        state = State.capture(setup.model, setup.optimizer, ranks, setup.loop_state())
        return Snapshot(setup.step, state, {name: v for name, v in metrics.items() if math.isfinite(v)})

    def flush(self) -> None:
        """Write metrics.jsonl, unless a newer attempt does."""
        check_fence(self.context.run, self.context.attempt)
        self._log.flush()

    def _committed(self, checkpoint: CheckpointRef, metrics: dict[str, float]) -> None:
        self.report(ReportKind.CHECKPOINT, step=checkpoint.step, checkpoint=checkpoint)

    def result(self, outcome: Outcome, test_metrics: dict[str, float] | None = None, model_uri: str = "") -> Result:
        """The end of this rank."""
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
