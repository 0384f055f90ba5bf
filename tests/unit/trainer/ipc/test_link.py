"""Lines out of bytes, and the two kinds of message streams over a socket pair."""

from __future__ import annotations

import queue
import select
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainmaster_trainer.ipc.link import Lines, Link, Talk
from trainmaster_trainer.ipc.messages import Dump, Message, Stacks, Stop, Warm, encode


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.binary(max_size=5), st.data())
def test_lines_are_independent_of_the_chunks(lines: list[bytes], rest: bytes, data: st.DataObject) -> None:
    text = b"".join(line + b"\n" for line in lines) + rest.replace(b"\n", b"")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    cutter, found = Lines(), []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += cutter.feed(text[start:end])
    assert found == lines


@pytest.mark.parametrize(
    ("before", "last"),
    [(b"", b"12345"), (b"123", b"45"), (b"", b"12345\n"), (b"", b"1\n12345\n1"), (b"1\n123", b"45\n")],
)
def test_lines_limit(before: bytes, last: bytes) -> None:
    cutter = Lines(limit=4)
    cutter.feed(before)
    with pytest.raises(ValueError, match="a line of more than 4 bytes"):
        cutter.feed(last)


def test_lines_at_the_limit() -> None:
    assert Lines(limit=4).feed(b"1234\n1234\n") == [b"1234", b"1234"]


def test_link_receive(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    link = Link(ours)
    assert link.receive() == [], "nothing has arrived yet"
    line = encode(Stop())
    theirs.sendall(line + line[:5])
    assert link.receive() == [Stop()]
    theirs.sendall(line[5:])
    assert link.receive() == [Stop()]
    theirs.close()
    assert link.receive() is None


def test_link_receive_refuses_noise(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"GET / HTTP/1.1\n")
    with pytest.raises(ValueError, match="not a message"):
        Link(ours).receive()


def test_link_send_does_not_block(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    link = Link(ours)
    sent: list[Message] = []
    while not link.is_congested:
        sent.append(Stacks(lines=["x" * 100_000, str(len(sent))]))
        link.send(sent[-1])
    other, found = Link(theirs), []
    while len(found) < len(sent):
        link.flush()
        assert select.select([other], [], [], 10)[0], "the rest never arrives"
        found += other.receive() or []
    assert found == sent
    assert not link.is_congested


def test_link_send_after_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    link = Link(ours)
    link.send(Stop())
    assert not link.is_congested, "bytes for a closed connection would keep the loop awake"
    assert link.receive() is None


def test_talk_calls_back_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    events: queue.Queue[Message | None] = queue.Queue()
    talk = Talk(ours, events.put, lambda: events.put(None))
    theirs.sendall(encode(Stop()) + encode(Dump()))
    talk.begin()
    assert [events.get(timeout=10), events.get(timeout=10)] == [Stop(), Dump()]
    talk.send(Warm())
    assert theirs.recv(4096) == encode(Warm())
    theirs.close()
    assert events.get(timeout=10) is None
    talk.send(Warm())  # raises nothing


def test_talk_ends_at_noise(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    events: queue.Queue[Message | None] = queue.Queue()
    Talk(ours, events.put, lambda: events.put(None)).begin()
    theirs.sendall(b"noise\n")
    assert events.get(timeout=10) is None
