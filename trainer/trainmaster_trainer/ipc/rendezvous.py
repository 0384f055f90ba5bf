"""Where the ranks of a group meet: rank 0 says where it listens, the driver tells the others."""

from __future__ import annotations

import threading

from .channel import Message, Peer


class Meeting:
    """The driver's part, for all groups of an attempt. Thread-safe.

    An address is given to its own group only: a rank 0 that is about to die may speak up after its replacement asked.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._addresses: dict[str, Message] = {}
        self._waiting: dict[str, list[Peer]] = {}

    def on_message(self, peer: Peer, message: Message) -> Message | None:
        """Of type `meet`, with `group`, and from rank 0 also `address`. Returns or sends the answer."""
        group, address = str(message["group"]), message.get("address")
        with self._lock:
            if address is None:
                if group not in self._addresses:
                    self._waiting.setdefault(group, []).append(peer)
                return self._addresses.get(group)
            answer = self._addresses[group] = {"type": "met", "address": address}
            waiting = self._waiting.pop(group, [])
        for one in waiting:
            one.send(answer)
        return None
