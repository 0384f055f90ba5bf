"""The channel between driver, ranks and launchers."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from trainmaster_api.messages import CheckpointRef
from trainmaster_trainer.context import Report, ReportKind, Signal
from trainmaster_trainer.errors import NotMet
from trainmaster_trainer.ipc.channel import ControlClient, ControlServer, Message, Peer, ask
from trainmaster_trainer.ipc.codec import report_from_wire
from trainmaster_trainer.ipc.rendezvous import Meeting

TOKEN = "t" * 64
Inbox = queue.Queue[tuple[Peer, Message]]


@pytest.fixture
def inbox() -> Inbox:
    return queue.Queue()


@pytest.fixture
def server(inbox: Inbox) -> Iterator[ControlServer]:
    def take(peer: Peer, message: Message) -> Message | None:
        inbox.put((peer, message))
        return {"type": "left", "saved": True} if peer.role == "launcher" else None

    server = ControlServer("127.0.0.1", 0, TOKEN, take)
    yield server
    server.close()


def client(server: ControlServer, token: str = TOKEN, rank: int = 0) -> ControlClient:
    return ControlClient(("127.0.0.1", server.port), token, rank, {"pod": "p"})


def until(server: ControlServer, ranks: int) -> None:
    import time

    deadline = time.monotonic() + 10
    while server.ranks() != ranks:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stopped(one: ControlClient) -> bool:
    import time

    deadline = time.monotonic() + 10
    while one.poll() is Signal.CONTINUE and time.monotonic() < deadline:
        time.sleep(0.005)
    return one.poll() is Signal.STOP


def test_a_report_arrives_as_it_was(server: ControlServer, inbox: Inbox) -> None:
    checkpoint = CheckpointRef(step=5, attempt=2, uri="s3://b/x", time="2026-01-01T00:00:00Z")
    report = Report(ReportKind.CHECKPOINT, 5, 100, 1, 12.5, {"val/loss": 0.25}, checkpoint, "words")
    one = client(server)
    one.report(report)
    peer, message = inbox.get(timeout=10)
    assert peer.hello["rank"] == 0
    assert "token" not in peer.hello
    assert report_from_wire(message) == report
    one.close()


def test_stop_reaches_ranks_that_come_before_and_after(server: ControlServer) -> None:
    before = client(server)
    until(server, 1)
    assert before.poll() is Signal.CONTINUE
    server.stop()
    after = client(server, rank=1)
    assert stopped(before)
    assert stopped(after)
    assert not before.leaving


def test_after_a_leave_new_ranks_go_on(server: ControlServer) -> None:
    old = client(server)
    until(server, 1)
    server.stop(leaving=True)
    assert stopped(old)
    assert old.leaving
    server.go_on()
    old.close()
    until(server, 0)
    new = client(server)
    until(server, 1)
    server.dump()  # whatever had been said before this would have arrived before the answer to it
    assert new.poll() is Signal.CONTINUE


def test_stacks_of_every_rank(server: ControlServer, inbox: Inbox) -> None:
    one = client(server, rank=3)
    until(server, 1)
    server.dump()
    _, message = inbox.get(timeout=10)
    assert message["rank"] == 3
    assert any("test_stacks_of_every_rank" in line for line in message["lines"])
    one.close()


def test_a_wrong_token_is_heard_by_nobody(server: ControlServer, inbox: Inbox) -> None:
    assert ask(("127.0.0.1", server.port), "wrong", "launcher", {"type": "leaving"}, 5) is None
    assert inbox.empty()


def test_a_launcher_gets_its_answer(server: ControlServer) -> None:
    answer = ask(("127.0.0.1", server.port), TOKEN, "launcher", {"type": "leaving", "pod": "w-1"}, 5)
    assert answer == {"type": "left", "saved": True}


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert ask(("127.0.0.1", port), TOKEN, "launcher", {"type": "leaving"}, 1) is None


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff\n", b"[1]\n", b'{"type": 3}\n', b""])
def test_noise_harms_nothing(server: ControlServer, inbox: Inbox, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(noise)
    one = client(server)
    one.report(Report(ReportKind.STEP, 1, 2, 0))
    assert inbox.get(timeout=10)[1]["type"] == "report"
    assert inbox.empty()


def test_a_lost_driver_never_blocks_a_report() -> None:
    server = ControlServer("127.0.0.1", 0, TOKEN, lambda peer, message: None)
    one = client(server)
    until(server, 1)
    server.close()
    report: Any = Report(ReportKind.STEP, 1, 2, 0)
    for _ in range(1000):
        one.report(report)


# --- where ranks meet -------------------------------------------------------------------------------------------------


@pytest.fixture
def meeting_server() -> Iterator[ControlServer]:
    server = ControlServer("127.0.0.1", 0, TOKEN, Meeting().on_message)
    yield server
    server.close()


def test_ranks_learn_where_rank_zero_listens_whoever_comes_first(meeting_server: ControlServer) -> None:
    ranks = [client(meeting_server, rank=rank) for rank in range(3)]
    with ThreadPoolExecutor() as pool:
        early = pool.submit(ranks[1].meet, "g", None, 10)
        assert ranks[0].meet("g", ("10.0.0.7", 4321), 10) == ("10.0.0.7", 4321)
        assert early.result() == ("10.0.0.7", 4321)
    assert ranks[2].meet("g", None, 10) == ("10.0.0.7", 4321)


def test_a_group_never_meets_where_another_did(meeting_server: ControlServer) -> None:
    """Not even if the old rank 0 speaks up in between."""
    old, late, new, other = (client(meeting_server, rank=rank) for rank in (0, 0, 0, 1))
    old.meet("one", ("10.0.0.7", 1), 10)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(other.meet, "two", None, 10)
        late.meet("one", ("10.0.0.7", 2), 10)
        new.meet("two", ("10.0.0.8", 3), 10)
        assert asked.result() == ("10.0.0.8", 3)


def test_a_meeting_that_nobody_opens_has_an_end(meeting_server: ControlServer) -> None:
    with pytest.raises(NotMet, match="rank 0 did not say"):
        client(meeting_server, rank=1).meet("g", None, 0.05)
