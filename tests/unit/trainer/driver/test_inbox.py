"""The inbox of a driver: events of other threads, handled in the one that decides."""

from __future__ import annotations

import threading
from collections.abc import Callable

from trainmaster_trainer.driver.group import Agent, Command, StopRanks
from trainmaster_trainer.driver.inbox import Inbox
from trainmaster_trainer.ipc.channel import Peer
from trainmaster_trainer.ipc.messages import Hello, Message, Retire, Stop, Warm


class World:
    """An inbox, what it has heard, and what its peers were sent."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, int]] = []
        self.sent: list[tuple[int, Message]] = []
        self.inbox = Inbox(self._hears("join"), self._hears("leave"), lambda peer, _: self._hears("message")(peer))

    def _hears(self, what: str) -> Callable[[Peer], list[Command]]:
        def hear(peer: Peer) -> list[Command]:
            self.heard.append((what, peer.number, threading.get_ident()))
            return [StopRanks(())]

        return hear

    def peer(self, number: int) -> Peer:
        return Peer(number, Hello(role="agent"), lambda message: self.sent.append((number, message)))


def test_events_are_handled_in_order_by_the_thread_that_turns() -> None:
    world, commands = World(), list[Command]()
    first = world.peer(1)

    def hear() -> None:
        world.inbox.on_join(first)
        world.inbox.on_message(first, Warm())
        world.inbox.post(lambda: None)
        world.inbox.on_leave(first)

    other = threading.Thread(target=hear)
    other.start()
    other.join()
    assert not world.heard
    for _ in range(4):
        commands += world.inbox.turn()
    assert world.heard == [(what, 1, threading.get_ident()) for what in ("join", "message", "leave")]
    assert commands == [StopRanks(())] * 3
    assert world.inbox.turn() == []


def test_what_is_sent_reaches_those_that_are_there() -> None:
    world = World()
    first, second = world.peer(1), world.peer(2)
    for peer in (first, second):
        world.inbox.on_join(peer)
        world.inbox.turn()
    world.inbox.send([Agent(1, 0), Agent(2, 1), Agent(3, 2)], Stop())
    world.inbox.on_leave(first)
    world.inbox.turn()
    world.inbox.send_to([1, 2], Warm())
    world.inbox.send_to_all(Retire())
    assert world.sent == [(1, Stop()), (2, Stop()), (2, Warm()), (2, Retire())]
