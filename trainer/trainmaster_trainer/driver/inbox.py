"""Where a driver hears of what happens in other threads, one event at a time, and by which it answers its peers."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable

from trainmaster_trainer.ipc.channel import Peer
from trainmaster_trainer.ipc.messages import Message

from .group import Agent, Command

TICK = 0.1
"""Seconds that `turn` waits for an event."""


class Inbox:
    """Listens to the channel, and has its events and those of other threads handled by the one that calls `turn`.

    Args:
        on_join: Called by `turn` with a peer that has joined; like the others, it returns what is to be done.
        on_leave: Called with a peer that has disconnected.
        on_message: Called with a peer and its message.
    """

    def __init__(
        self,
        on_join: Callable[[Peer], list[Command]],
        on_leave: Callable[[Peer], list[Command]],
        on_message: Callable[[Peer, Message], list[Command]],
    ) -> None:
        self._joined, self._left, self._heard = on_join, on_leave, on_message
        self._events: queue.SimpleQueue[Callable[[], list[Command] | None]] = queue.SimpleQueue()
        self._peers: dict[int, Peer] = {}

    # -- from any thread ------------------------------------------------------------------------------------------
    def post(self, event: Callable[[], list[Command] | None]) -> None:
        """Have an event handled."""
        self._events.put(event)

    def on_join(self, peer: Peer) -> None:
        """Queue the event of a peer that has joined."""
        self.post(lambda: self._on_join(peer))

    def on_leave(self, peer: Peer) -> None:
        """Queue the event of a peer that has disconnected."""
        self.post(lambda: self._on_leave(peer))

    def on_message(self, peer: Peer, message: Message) -> None:
        """Queue a peer's message."""
        self.post(lambda: self._heard(peer, message))

    # -- from the thread that decides -----------------------------------------------------------------------------
    def turn(self) -> list[Command]:
        """Handle the next event, if there is one within a tick; return what is to be done."""
        try:
            event = self._events.get(timeout=TICK)
        except queue.Empty:
            return []
        return event() or []

    def send(self, agents: Iterable[Agent], message: Message) -> None:
        """Send a message to those agents that are connected."""
        self.send_to([agent.peer for agent in agents], message)

    def send_to(self, numbers: Iterable[int], message: Message) -> None:
        """Send a message to those peers that are connected."""
        for number in numbers:
            if number in self._peers:
                self._peers[number].send(message)

    def send_to_all(self, message: Message) -> None:
        """Send a message to every peer."""
        self.send_to(list(self._peers), message)

    def _on_join(self, peer: Peer) -> list[Command]:
        self._peers[peer.number] = peer
        return self._joined(peer)

    def _on_leave(self, peer: Peer) -> list[Command]:
        self._peers.pop(peer.number, None)
        return self._left(peer)
