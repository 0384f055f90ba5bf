"""What the driver of a population does: where its rounds are stored, and what an actor does that waits for others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainmaster_trainer.checkpoint.protocol import remove_all
from trainmaster_trainer.context import Segment
from trainmaster_trainer.ipc.channel import Peer
from trainmaster_trainer.ipc.messages import Wake
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.trials import NUMBER, RUN, SEGMENT, WAITS, Suggestion, TrialEnd, TrialRecord, run_of

_NO_TRIAL = -1


class Rounds:
    """The rounds of a population."""

    def __init__(self, store: Store) -> None:
        """Take the store of the job's run."""
        self._store = store
        self._wakes = 0
        self._cleared = 0

    def config(self, found: Suggestion) -> dict[str, Any]:
        """Return what a trial must know of its round."""
        if not found.round:
            return {}
        origin = "" if found.source is None else run_of(found.source, found.round - 1)
        is_other = found.source not in (None, found.number)
        segment = Segment(until=found.until, origin=origin, is_other=is_other)
        return {RUN: run_of(found.number, found.round), SEGMENT: segment.wire()}

    def rest(self) -> dict[str, Any]:
        """Return what an actor gets that keeps its processes warm until the round is over."""
        return {NUMBER: _NO_TRIAL, WAITS: self._wakes + 1}

    def wake(self, peers: Iterable[Peer]) -> None:
        """Have the actors that wait ask again."""
        self._wakes += 1
        for peer in peers:
            self.tell(peer)

    def tell(self, peer: Peer) -> None:
        """Tell an actor, which may have joined since, how often those that wait were woken."""
        peer.send(Wake(count=self._wakes))

    def clear(self, trials: Iterable[TrialRecord], begun: int) -> None:
        """Remove the checkpoints that no trial begins with any more, now that a round begins.

        Those of the round before it are where its trials begin; a trial that is complete keeps its last ones.
        """
        if begun == self._cleared:
            return
        first = begun - 2 if begun == self._cleared + 1 else 1  # after a restart it isn't known what was removed
        for record in trials:
            for number in range(max(1, first), begun - 1):
                if number <= len(record.rounds) or record.end not in (None, TrialEnd.COMPLETE):
                    remove_all(self._store.under(run_of(record.number, number)))
        self._cleared = begun
