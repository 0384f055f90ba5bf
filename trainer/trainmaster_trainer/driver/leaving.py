"""Pods that are told to end while trials run: each waits until the trials that have ranks in it are saved.

launcher --Leaving--> driver --Leaving--> actor of trials
launcher <--Left----- driver <--Left----- actor of trials
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trainmaster_trainer.ipc.channel import Peer
from trainmaster_trainer.ipc.messages import Leaving, Left

_RESULT_SECONDS = 1.0
"""How long the result of a trial may take to its search by way of Ray; with the answer to its pod the actor ends."""


@dataclass
class _Waiting:
    launcher: Peer
    actors: set[int]
    saved: bool = False


class Leavers:
    """In the driver: the launchers that wait, each for all actors. In one thread."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def ask(self, launcher: Peer, message: Leaving, actors: Iterable[Peer]) -> None:
        """Ask all actors: which of them have ranks in the pod, only they know."""
        asked = {actor.number: actor for actor in actors}
        self._waiting[message.pod] = _Waiting(launcher, set(asked))
        for actor in asked.values():
            actor.send(message)
        self._answer()

    def answered(self, actor: Peer, message: Left) -> None:
        """Take an actor's answer."""
        waiting = self._waiting.get(message.pod)
        if waiting is not None:
            waiting.saved |= message.saved
            waiting.actors.discard(actor.number)
            self._answer()

    def gone(self, actor: Peer) -> None:
        """Wait no longer for an actor."""
        for waiting in self._waiting.values():
            waiting.actors.discard(actor.number)
        self._answer()

    def _answer(self) -> None:
        for pod, waiting in list(self._waiting.items()):
            if not waiting.actors:
                del self._waiting[pod]
                waiting.launcher.send(Left(saved=waiting.saved, pod=pod))


class Departures:
    """In an actor of trials: pods with its ranks that wait for the trial that runs. From any thread."""

    def __init__(self, answer: Callable[[Left], None]) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self._pods: list[str] = []
        self._has_trial = self._is_leaving = self._has_saved = False

    def begin(self) -> bool:
        """Take note of a trial that begins; return False where it would be lost: a pod of this actor's ranks ends."""
        with self._lock:
            self._has_trial, self._has_saved = not self._is_leaving, False
            return self._has_trial

    def leaving(self, pod: str, *, is_open: bool) -> bool:
        """Take note of a pod that was told to end.

        Args:
            pod: Its name; it has ranks of this actor.
            is_open: Whether the newest trial is still to be trained.

        Returns:
            Whether the trial must be saved now; otherwise the pod has its answer.
        """
        with self._lock:
            self._is_leaving = True
            must_save = self._has_trial and is_open
            if must_save:
                self._pods.append(pod)
        if not must_save:
            self._answer(Left(saved=False, pod=pod))
        return must_save

    def over(self, *, saved: bool) -> None:
        """Take note that the trial is over; the pods end soon."""
        with self._lock:
            self._has_trial, self._has_saved = False, saved
            if self._pods:
                timer = threading.Timer(_RESULT_SECONDS, self.let_go)
                timer.daemon = True
                timer.start()

    def let_go(self) -> None:
        """Let the pods end: the result of the trial has arrived, or there is nothing to save."""
        with self._lock:
            pods, self._pods = self._pods, []
        for pod in pods:
            self._answer(Left(saved=self._has_saved, pod=pod))
