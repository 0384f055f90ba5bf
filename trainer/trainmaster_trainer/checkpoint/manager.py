"""Saves in a background thread, finds the checkpoint to resume from, applies the retention policy. Runs on rank 0."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from trainmaster_api.layout import BEST, LATEST, Manifest
from trainmaster_api.messages import CheckpointRef

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tasks import Objective

from . import protocol
from .protocol import Position, Torn
from .state import State

SLOW_SECONDS = 15.0  # a save is reported as slow after this, and after three times the duration of the previous one
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The contents of a checkpoint.

    Attributes:
        step: Optimizer steps done.
        state: A copy that training doesn't change.
        metrics: Validation metrics of exactly this step, if it was validated.
    """

    step: int
    state: State
    metrics: dict[str, float]


@dataclass(frozen=True)
class Policy:
    """Retention policy.

    Attributes:
        keep: Number of newest checkpoints.
        keep_best: Number of best checkpoints, in addition.
        objective: The metric that ranks them, and its direction.
    """

    keep: int
    keep_best: int
    objective: Objective


@dataclass(frozen=True, slots=True)
class Slow:
    """A save in flight that takes longer than expected.

    Attributes:
        step: Step of the checkpoint.
        since: Start of the save, RFC 3339.
    """

    step: int
    since: str


class CheckpointManager:
    """Writes checkpoints in its own thread. Handing over a copy never waits, however long storage takes.

    One save is in flight; of those that become due in the meantime only the newest is kept, and the best so far. So
    storage that hangs costs checkpoints and not steps, and memory for at most two more copies of the state. There is no
    queue: an older state is worth nothing once a newer one is written.

    Args:
        store: The run's store.
        run_uri: Address of the run, for messages.
        attempt: This attempt.
        world_size: Ranks that train.
        policy: Retention policy.
        before_save: Called first, by the saving thread: writes what must be in storage no later than the checkpoint.
        on_commit: Called by the saving thread when a checkpoint is committed.
    """

    def __init__(
        self,
        store: Store,
        run_uri: str,
        attempt: int,
        world_size: int,
        policy: Policy,
        before_save: Callable[[], None],
        on_commit: Callable[[CheckpointRef], None],
    ) -> None:
        self.store, self.run_uri, self.attempt, self.world_size = store, run_uri, attempt, world_size
        self.policy, self.before_save, self.on_commit = policy, before_save, on_commit
        self.latest: CheckpointRef | None = None
        self.last_save_seconds = 0.0
        self._manifests: dict[Position, Manifest] = {}
        # One thread: two saves at once would compete for storage, and commit in an unknown order.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._saving: Future[None] | None = None
        self._lock = threading.Lock()  # guards the next three: the training thread hands over, the saving thread takes
        self._best: Snapshot | None = None
        self._newest: Snapshot | None = None
        self._is_writing = False
        self._began: tuple[int, float, str] | None = None
        self._is_proven = False

    # -- resume -------------------------------------------------------------------------------------------------
    def resume(self, warn: Callable[[str], None]) -> State | None:
        """Claim the run and return its newest valid checkpoint; None for a new run.

        A torn one is skipped with a warning and kept for inspection. Uncommitted leftovers of older attempts are
        removed.
        """
        # Claim before reading: from here on older attempts stop at their next fence check, so what is read here stays
        # the newest.
        protocol.claim(self.store, self.attempt)
        found: State | None = None
        for position in protocol.positions(self.store):
            try:
                manifest = protocol.read_manifest(self.store, position)
                if manifest is not None and found is None:
                    found = State.from_files(protocol.read_files(self.store, position, manifest))
                    self.latest = self._ref(manifest)
            except Torn as torn:
                warn(f"{torn}; skipping it")
                continue
            if manifest is not None:
                self._manifests[position] = manifest
            elif position[0] < self.attempt:  # no manifest, and its writer is fenced: it will never be committed
                protocol.remove(self.store, position)
        return found

    def sweep(self) -> None:
        """Remove checkpoints that were begun and never committed, at the end of a run."""
        for position in protocol.positions(self.store):
            if position not in self._manifests and not protocol.has_manifest(self.store, position):
                protocol.remove(self.store, position)

    def best(self) -> Position | None:
        """Return the best committed checkpoint by the policy's metric; None if none has it."""
        ranked = self._ranked()
        return ranked[0] if ranked else None

    def load_best(self, warn: Callable[[str], None]) -> tuple[Position, State] | None:
        """Return the best valid checkpoint, skipping torn ones with a warning; None if there is none."""
        for position in self._ranked():
            try:
                return position, State.from_files(protocol.read_files(self.store, position, self._manifests[position]))
            except Torn as torn:
                warn(f"{torn}; skipping it")
        return None

    # -- save ---------------------------------------------------------------------------------------------------
    def keep(self, best: Snapshot) -> None:
        """Hold the best so far; it is written with the next checkpoint, and replaced if a better one comes first.

        Early in a run nearly every validation is the best so far, and writing each would cost more than training.
        Nothing is lost: a resume restarts from a checkpoint, and the best up to there was written with it.
        """
        with self._lock:
            self._best = best

    def save(self, snapshot: Snapshot) -> None:
        """Hand over the newest state; it replaces one that is still waiting.

        Raises:
            TrainingError: An earlier save failed.
        """
        self.poll()
        with self._lock:
            self._newest = snapshot
            if not self._is_writing:
                self._is_writing = True
                self._saving = self._thread.submit(self._drain)

    @property
    def is_idle(self) -> bool:
        """Whether a save would be written at once."""
        return not self._is_writing

    def poll(self) -> None:
        """Raise the error of a failed save, without waiting.

        Raises:
            TrainingError: A save failed.
        """
        if self._saving is not None and self._saving.done():
            self._end()

    def wait(self, look: Callable[[], None] = lambda: None) -> None:
        """Wait until everything that was handed over is written.

        Args:
            look: Called about twice a second while waiting, so that slow storage is reported here too.

        Raises:
            TrainingError: A save failed.
        """
        while self._saving is not None:
            look()
            wait([self._saving], _LOOK_SECONDS)
            self.poll()
        look()

    def close(self) -> None:
        """End the saving thread after writing what was handed over."""
        self._thread.shutdown(wait=True)

    def _end(self) -> None:
        """Raise the error that ended the saving thread's round, if any; the next save starts a new round."""
        assert self._saving is not None
        saving, self._saving = self._saving, None
        try:
            saving.result()
        except BaseException:
            self._is_writing = False
            raise

    def kept(self, step: int) -> Snapshot | None:
        """Return the best so far if it is of this step and not yet written: one copy serves for both."""
        with self._lock:
            return self._best if self._best is not None and self._best.step == step else None

    @property
    def slow(self) -> Slow | None:
        """The save in flight, if it takes longer than expected."""
        began = self._began
        if began is None:
            return None
        step, at, since = began
        limit = max(SLOW_SECONDS, 3 * self.last_save_seconds)
        return Slow(step, since) if time.monotonic() - at > limit else None

    def _drain(self) -> None:
        """Write what is waiting, until nothing is."""
        try:
            while snapshots := self._next():
                began = time.monotonic()
                self._began = (snapshots[-1].step, began, protocol.now())
                # metrics.jsonl first: a checkpoint without the lines up to its step would leave a gap after a resume.
                self.before_save()
                for snapshot in snapshots:
                    if (
                        self.attempt,
                        snapshot.step,
                    ) not in self._manifests:  # the last step may have been saved already
                        self._commit(snapshot)
                # Only after the new one is committed: at no time are there fewer checkpoints than `keep`.
                self._retain()
                self.last_save_seconds = time.monotonic() - began
        finally:
            self._began = None

    def _next(self) -> list[Snapshot]:
        """Return what to write together, in the order of steps: the best so far if it is older, then the newest."""
        with self._lock:
            best, newest = self._best, self._newest
            if newest is None:
                self._is_writing = False  # under the lock, so that a copy handed over now starts a new round
                return []
            self._newest = None
            if best is None or best.step > newest.step:  # a best after this checkpoint waits for the next one
                return [newest]
            self._best = None
            return [best, newest] if best.step < newest.step else [newest]

    def _commit(self, snapshot: Snapshot) -> None:
        position = (self.attempt, snapshot.step)
        files = snapshot.state.files()  # serialized here and not in `capture`, which holds up training
        self._prove(files)
        manifest = protocol.commit(self.store, *position, self.world_size, snapshot.metrics, files)
        self._manifests[position] = manifest
        protocol.advance(self.store, LATEST, position)
        best = self.best()
        if best is not None:
            protocol.advance(self.store, BEST, best, back=True)
        self.latest = self._ref(manifest)
        self.on_commit(self.latest)

    def _prove(self, files: dict[str, bytes]) -> None:
        """Load the first checkpoint back: a user's optimizer or schedule may have state that can't be loaded."""
        if self._is_proven:
            return
        try:
            State.from_files(files)
        except Exception as error:
            raise ConfigurationError(
                "the state of training.optimizer, schedule or loss can't be loaded from a checkpoint "
                f"({str(error).strip().splitlines()[0][:200]}); it must consist of tensors, numbers, "
                f"strings, lists and dicts"
            ) from error
        self._is_proven = True

    def _retain(self) -> None:
        kept = set(sorted(self._manifests, reverse=True)[: self.policy.keep])
        kept |= set(self._ranked()[: self.policy.keep_best])
        for position in set(self._manifests) - kept:
            protocol.remove(self.store, position)
            del self._manifests[position]

    def _ranked(self) -> list[Position]:
        """Return the checkpoints with the metric, best first; the earlier of two equal ones, so a tie moves nothing."""
        objective = self.policy.objective
        found = [
            (objective.rank(manifest.metrics[objective.metric]), position)
            for position, manifest in self._manifests.items()
            if objective.metric in manifest.metrics
        ]
        return [position for _, position in sorted(found)]

    def _ref(self, manifest: Manifest) -> CheckpointRef:
        place = protocol.directory(manifest.attempt, manifest.step)
        return CheckpointRef(
            step=manifest.step, attempt=manifest.attempt, uri=f"{self.run_uri}/{place}", time=manifest.time
        )


def newest_of(store: Store) -> State:
    """Return the newest checkpoint of another run, for run.resumeFrom.

    Raises:
        ConfigurationError: There is none.
    """
    for position in protocol.positions(store):
        try:
            manifest = protocol.read_manifest(store, position)
            if manifest is not None:
                state = State.from_files(protocol.read_files(store, position, manifest))
                state.is_foreign = True
                return state
        except Torn:
            continue
    raise ConfigurationError(
        f"run.resumeFrom: {store.uri} has no valid checkpoint; "
        "give the directory of a run: <storage.uri>/<namespace>/<name>/<uid>"
    )
