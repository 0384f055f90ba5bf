"""Saves off the training thread, finds what to resume from, keeps what the policy says. Lives on rank 0."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from trainmaster_api.layout import BEST, LATEST, Manifest
from trainmaster_api.messages import CheckpointRef

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tasks.metrics import higher_is_better

from . import protocol
from .protocol import Position, Torn
from .state import State


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a checkpoint is made of.

    Attributes:
        step: Optimizer steps done.
        state: A copy that training doesn't change.
        metrics: Validation metrics of this very step, if it was validated.
    """

    step: int
    state: State
    metrics: dict[str, float]


@dataclass(frozen=True)
class Policy:
    """What is kept.

    Attributes:
        keep: Newest checkpoints.
        keep_best: Best checkpoints besides.
        metric: Which metric says best.
    """

    keep: int
    keep_best: int
    metric: str


class CheckpointManager:
    """One save in flight at a time; `save` returns when the copy is handed over.

    Args:
        store: The run's store.
        run_uri: Address of the run, for messages.
        attempt: This attempt.
        world_size: Ranks that train.
        policy: What is kept.
        committed: Called from the saving thread when a checkpoint exists.
    """

    def __init__(
        self,
        store: Store,
        run_uri: str,
        attempt: int,
        world_size: int,
        policy: Policy,
        committed: Callable[[CheckpointRef, dict[str, float]], None],
    ) -> None:
        self.store, self.run_uri, self.attempt, self.world_size = store, run_uri, attempt, world_size
        self.policy, self.committed = policy, committed
        self.latest: CheckpointRef | None = None
        self.last_save_seconds = 0.0
        self._manifests: dict[Position, Manifest] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    # -- resume -------------------------------------------------------------------------------------------------
    def resume(self, warn: Callable[[str], None]) -> State | None:
        """The newest checkpoint that verifies, after claiming the run; None: a new run.

        A torn one is passed over with a warning, and stays for whoever wants to look at it. What older attempts began
        and never committed is swept away.
        """
        protocol.claim(self.store, self.attempt)
        found: State | None = None
        for position in protocol.positions(self.store):
            try:
                manifest = protocol.read_manifest(self.store, position)
                if manifest is not None and found is None:
                    found = State.from_files(protocol.read_files(self.store, position, manifest))
                    self.latest = self._ref(manifest)
            except Torn as torn:
                warn(f"{torn}; it is passed over")
                continue
            if manifest is not None:
                self._manifests[position] = manifest
            elif position[0] < self.attempt:
                protocol.remove(self.store, position)
        return found

    def sweep(self) -> None:
        """At the end of a run: take away what was begun and never committed."""
        for position in protocol.positions(self.store):
            if position not in self._manifests and not protocol.has_manifest(self.store, position):
                protocol.remove(self.store, position)

    def best(self) -> Position | None:
        """The best committed checkpoint by the policy's metric; None where none has it."""
        ranked = self._ranked()
        return ranked[0] if ranked else None

    def load_best(self, warn: Callable[[str], None]) -> tuple[Position, State] | None:
        """The best checkpoint that verifies; a torn one is passed over with a warning. None: there is none."""
        for position in self._ranked():
            try:
                return position, State.from_files(protocol.read_files(self.store, position, self._manifests[position]))
            except Torn as torn:
                warn(f"{torn}; it is passed over")
        return None

    # -- save ---------------------------------------------------------------------------------------------------
    def save(self, snapshots: list[Snapshot], also: Callable[[], None]) -> None:
        """Hand copies over. Waits for the save before; its failure is raised here.

        Args:
            snapshots: In the order of their steps.
            also: Called by the saving thread first: what must be written no later than the checkpoint.
        """
        self.wait()
        self._pending = self._thread.submit(self._save, snapshots, also)

    @property
    def is_idle(self) -> bool:
        """Whether a save could begin without waiting."""
        return self._pending is None or self._pending.done()

    def wait(self) -> None:
        """Wait for the save in flight.

        Raises:
            TrainingError: It failed.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """End the saving thread; a save in flight is finished."""
        self._thread.shutdown(wait=True)

    def _save(self, snapshots: list[Snapshot], also: Callable[[], None]) -> None:
        began = time.monotonic()
        also()
        for snapshot in snapshots:
            if (self.attempt, snapshot.step) not in self._manifests:  # the last step may have been saved anyway
                self._commit(snapshot)
        self._retain()
        self.last_save_seconds = time.monotonic() - began

    def _commit(self, snapshot: Snapshot) -> None:
        position = (self.attempt, snapshot.step)
        manifest = protocol.commit(self.store, *position, self.world_size, snapshot.metrics, snapshot.state.files())
        self._manifests[position] = manifest
        protocol.advance(self.store, LATEST, position)
        best = self.best()
        if best is not None:
            protocol.advance(self.store, BEST, best, back=True)
        self.latest = self._ref(manifest)
        self.committed(self.latest, snapshot.metrics)

    def _retain(self) -> None:
        kept = set(sorted(self._manifests, reverse=True)[: self.policy.keep])
        kept |= set(self._ranked()[: self.policy.keep_best])
        for position in set(self._manifests) - kept:
            protocol.remove(self.store, position)
            del self._manifests[position]

    def _ranked(self) -> list[Position]:
        """Checkpoints with the metric, best first; the earlier of two equals, so a tie moves nothing."""
        metric = self.policy.metric
        sign = -1.0 if higher_is_better(metric) else 1.0
        found = [(sign * m.metrics[metric], p) for p, m in self._manifests.items() if metric in m.metrics]
        return [position for _, position in sorted(found)]

    def _ref(self, manifest: Manifest) -> CheckpointRef:
        place = protocol.directory(manifest.attempt, manifest.step)
        return CheckpointRef(
            step=manifest.step, attempt=manifest.attempt, uri=f"{self.run_uri}/{place}", time=manifest.time
        )


def newest_of(store: Store) -> State:
    """Newest checkpoint of another run, for run.resumeFrom.

    Raises:
        ConfigurationError: There is none.
    """
    for position in protocol.positions(store):
        try:
            manifest = protocol.read_manifest(store, position)
            if manifest is not None:
                return State.from_files(protocol.read_files(store, position, manifest))
        except Torn:
            continue
    raise ConfigurationError(
        f"run.resumeFrom: {store.uri} holds no checkpoint that verifies; "
        "give the directory of a run: <storage.uri>/<namespace>/<name>/<uid>"
    )
